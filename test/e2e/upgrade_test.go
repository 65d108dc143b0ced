// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// TestUpgrade runs a new agent and a new Envoy beside the old ones, as an upgrade
// of the chart does, and then ends the old ones, within a mode and from one to
// the other: no request fails, and nothing of the old ones is left. Within a mode, the
// old ones have the ports that were the default once.
func TestUpgrade(t *testing.T) {
	for _, c := range []struct{ from, to lab.Mode }{
		{lab.Host, lab.Host}, {lab.Pods, lab.Pods}, {lab.Host, lab.Pods}, {lab.Pods, lab.Host},
	} {
		t.Run(fmt.Sprintf("%s to %s", c.from, c.to), func(t *testing.T) {
			w := newFixture(t, inMode(c.from))
			flags := []string{"--cleanup-on-exit", "--drain-timeout", "5s"}
			var ports []string
			if c.from == c.to {
				ports = []string{"--listener-port-tcp", "15001", "--listener-port-http", "15002", "--listener-port-detect", "15003"}
			}
			w.start(t, append(ports, flags...)...)
			loads := w.startUpgradeTraffic(t)
			old, oldEnvoy := w.agent, w.envoy
			w.node = must(w.node.Generation("next"))(t)
			w.variant = inMode(c.to)
			w.SetMode(c.to)
			w.startEnvoy(t)
			w.startAgent(t, append(flags, "--metrics-address", "127.0.0.1:23730")...)
			w.untilSettled(t)
			check(t, old.Stop(20*time.Second))
			check(t, oldEnvoy.Stop(endLimit))
			check(t, waitFor(t, 10*time.Second, func() error { return w.onlyHere(t) }))
			w.untilPath(t, time.Second, true)
			r := call(t, w.client, w.probe())
			w.allThroughEnvoy(t, r)
			for what, r := range loads.stop(t) {
				if past := r.Requests - r.Relayed; past > 0 {
					t.Logf("%s: %d of %d requests went past both Envoys", what, past, r.Requests)
				}
			}
			if t.Failed() {
				t.Logf("the old agent's log:\n%s", old.Output())
			}
		})
	}
}

// inMode is the usual kind of node, in a mode.
func inMode(mode lab.Mode) variant {
	if mode == lab.Pods {
		return podBridged()
	}
	return hostBridged()
}

// startUpgradeTraffic is load on connections that end by themselves, or when
// Envoy says that it would like them to.
func (w *fixture) startUpgradeTraffic(t *testing.T) traffic {
	t.Helper()
	loads := traffic{}
	for what, spec := range map[string]echo.Spec{
		"HTTP/1.1, kept alive":      {Protocol: echo.HTTP1, Target: web4 + ":80", Connections: 2},
		"HTTP/1.1, new connections": {Protocol: echo.HTTP1, Target: web6 + ":80", Connections: 4, Fresh: true},
		"gRPC":                      {Protocol: echo.GRPC, Target: web4 + ":9090"},
		"TCP, new connections":      {Protocol: echo.TCP, Target: web4 + ":7000", Connections: 4, Fresh: true},
	} {
		spec.Rate, spec.Timeout = 50, 3*time.Second
		loads[what] = must(w.client.Load(spec))(t)
	}
	loads.untilAnswered(t)
	return loads
}

// TestModeChange restarts the agent in another mode, to and fro, beside the same
// Envoy, which loses its listeners by that: nothing of the mode before is left,
// and no new connection fails.
func TestModeChange(t *testing.T) {
	each(t, []variant{hostBridged(), hostRouted()}, func(t *testing.T, w *fixture) {
		w.startAgent(t)
		// With the rights that the chart gives it where the agent may choose its mode.
		w.SetMode(lab.Auto)
		w.startEnvoy(t)
		w.SetMode(w.variant.Mode)
		must(w.agent.WaitRedirected(limit(t), w.client))(t)
		host := w.variant
		load := must(w.client.Load(w.fresh()))(t)
		var first []string
		for round, mode := range []lab.Mode{lab.Host, lab.Pods, lab.Host, lab.Pods} {
			if round > 0 {
				check(t, w.agent.Stop(endLimit))
				w.SetMode(mode)
				w.variant.Mode, w.variant.mechanism = mode, ""
				if mode == lab.Host {
					w.variant.mechanism = host.mechanism
				}
				w.startAgent(t)
				w.untilSettled(t)
			}
			check(t, waitFor(t, 10*time.Second, func() error { return w.onlyHere(t) }))
			r := call(t, w.client, w.probe())
			w.allThroughEnvoy(t, r)
			if mode == lab.Host && round == 0 {
				first = w.kernel(t)
			} else if again := w.kernel(t); mode == lab.Host && !slices.Equal(first, again) {
				t.Errorf("back in host mode the kernel has %q, at first it had %q", again, first)
			}
		}
		stop(t, "new connections", load)
	})
}

// onlyHere wants nothing of nodevoy's in the kernel but where the mode has it.
func (w *fixture) onlyHere(t *testing.T) error {
	t.Helper()
	for _, ns := range w.node.AllNetns() {
		want := w.variant.Mode == lab.Host && ns.Name == w.node.Name ||
			w.variant.Mode == lab.Pods && (ns.Name == w.client.Name || ns.Name == w.web[0].Name)
		if own := must(ns.Own(limit(t)))(t); (len(own) > 0) != want {
			return fmt.Errorf("in mode %s there is in %s: %q", w.variant.Mode, ns.Name, own)
		}
	}
	return w.client.Redirected(t.Context())
}
