// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	"github.com/nodevoy/nodevoy/xds/server"
)

// podModeEnvoy is the first Envoy that survives when a network namespace in
// which it listens goes away (envoyproxy/envoy#39890).
func podModeEnvoy() server.Version { return server.Version{1, 40, 0} }

// notProbed is the gate's answer while nobody has tried Envoy's data path since
// it connected.
const notProbed = "Envoy's listener has not been tried yet"

// gate is what is known when the loop asks whether connections may be redirected
// to Envoy. It is a value: the answers follow from it alone.
type gate struct {
	podMode bool
	envoy   server.Status
	// proof is the last request through Envoy's own listener.
	proof probeResult
}

// closed says why nothing may be redirected now; empty when the gate is open.
func (g gate) closed() string {
	switch {
	case !g.envoy.Connected:
		return "no Envoy is connected"
	case g.podMode && g.envoy.Version.Less(podModeEnvoy()):
		return fmt.Sprintf("Envoy %s is older than %s, which pod mode needs", g.envoy.Version, podModeEnvoy())
	case !g.envoy.ListenersAcked:
		return "Envoy has not accepted the listeners"
	case !g.envoy.Settled && !g.envoy.Loading:
		return "Envoy has not answered the last change"
	case g.proof.at.Before(g.envoy.Since):
		return notProbed
	case g.proof.err != nil:
		return fmt.Sprintf("Envoy's listener does not answer: %v", g.proof.err)
	}
	return ""
}
