// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// TestUnusedServiceWithoutAgent calls, after the agent was stopped, a port that
// Envoy has not been told of: kube-proxy serves it, as Envoy could not. What
// Envoy knows stays with Envoy.
func TestUnusedServiceWithoutAgent(t *testing.T) {
	each(t, modes(), testUnused)
}

func testUnused(t *testing.T, w *fixture) {
	w.start(t)
	w.untilPath(t, time.Second, true)
	check(t, w.agent.Stop(endLimit))
	unused := echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":8080", Requests: 5, Fresh: true, Timeout: 5 * time.Second}
	r := call(t, w.client, unused)
	if r.Failed > 0 {
		t.Errorf("%d calls to a Service of the first time failed: %v", r.Failed, r.Errors)
	}
	if r.Relayed > 0 {
		t.Errorf("%d calls to a Service that Envoy doesn't know went through it", r.Relayed)
	}
	used := call(t, w.client, w.probe())
	w.allThroughEnvoy(t, used)
	if used.Failed > 0 {
		t.Errorf("a call to a Service that Envoy knows failed: %v", used.Errors)
	}
	w.startAgent(t)
	w.untilSettled(t)
	again := call(t, w.client, unused)
	w.allThroughEnvoy(t, again)
	if again.Failed > 0 {
		t.Errorf("calls failed after the agent's return: %v", again.Errors)
	}
}
