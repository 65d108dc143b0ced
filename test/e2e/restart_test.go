// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// endLimit is how long agent and Envoy may take to end when asked to.
const endLimit = 10 * time.Second

// traffic is steady load of several kinds from the client to shop/web.
type traffic map[string]*lab.Load

// startTraffic starts the load and waits until all of it is answered, so Envoy
// has asked for everything it needs.
func (w *fixture) startTraffic(t *testing.T) traffic {
	t.Helper()
	loads := traffic{}
	for what, spec := range map[string]echo.Spec{
		"HTTP/1.1, kept alive":      {Protocol: echo.HTTP1, Target: web4 + ":80", Connections: 2},
		"HTTP/1.1, new connections": {Protocol: echo.HTTP1, Target: web4 + ":80", Connections: 4, Fresh: true},
		"HTTP/1.1, IPv6":            {Protocol: echo.HTTP1, Target: web6 + ":80", Connections: 2, Fresh: true},
		"gRPC":                      {Protocol: echo.GRPC, Target: web4 + ":9090"},
		"TCP":                       {Protocol: echo.TCP, Target: web4 + ":7000"},
		"TCP, new connections":      {Protocol: echo.TCP, Target: web4 + ":7000", Connections: 4, Fresh: true},
	} {
		spec.Rate, spec.Timeout = 40, 3*time.Second
		loads[what] = must(w.client.Load(spec))(t)
	}
	loads.untilAnswered(t)
	return loads
}

// untilAnswered waits until some requests of each kind are done.
func (loads traffic) untilAnswered(t *testing.T) {
	t.Helper()
	for what, load := range loads {
		check(t, lab.Until(limit(t), what, func() error {
			if n := len(load.Records()); n < 5 {
				return fmt.Errorf("only %d requests are done", n)
			}
			return nil
		}))
	}
}

// stop ends the load, and reports each failed request.
func (loads traffic) stop(t *testing.T) map[string]echo.Result {
	t.Helper()
	results := map[string]echo.Result{}
	for what, load := range loads {
		results[what] = stop(t, what, load)
	}
	return results
}

// TestAgentRestarts restarts the agent 20 times under load, every other time
// by SIGKILL.
func TestAgentRestarts(t *testing.T) {
	each(t, []variant{hostBridged(), hostRouted(), podBridged()}, func(t *testing.T, w *fixture) {
		w.start(t)
		loads := w.startTraffic(t)
		for i := range 20 {
			if i%2 == 0 {
				check(t, w.agent.Stop(endLimit))
			} else {
				check(t, w.agent.Kill())
			}
			w.startAgent(t)
			w.untilSettled(t)
		}
		for what, r := range loads.stop(t) {
			w.allThroughEnvoy(t, r)
			t.Logf("%s: %d requests, %d connections, max %s", what, r.Requests, r.Connections, r.Max)
		}
		for _, stat := range []string{"cluster_manager.cluster_removed", "listener_manager.listener_removed", "listener_manager.listener_modified"} {
			if n := must(w.envoy.Stat(limit(t), stat))(t); n != 0 {
				t.Errorf("Envoy says %d of %s, want none", n, stat)
			}
		}
		if n := must(w.envoy.Stat(limit(t), "cluster_manager.cluster_added"))(t); n < 4 {
			t.Errorf("Envoy added %d clusters, want at least those in use", n)
		}
	})
}

// untilSettled waits until the agent that has just started says that all is in
// place.
func (w *fixture) untilSettled(t *testing.T) {
	t.Helper()
	check(t, waitFor(t, 15*time.Second, func() error {
		s, err := w.node.Status(limit(t))
		if err != nil {
			return err
		}
		if s.Phase != "redirecting" || !s.Envoy.Connected || s.Envoy.Unanswered > 0 {
			return fmt.Errorf("the agent says %+v", s)
		}
		return nil
	}))
	check(t, w.client.Redirected(limit(t)))
}

// switchTimeout is the timeout of the set of pod addresses in these tests.
const switchTimeout = 6 * time.Second

// TestAgentKilled kills the agent for good: calls go on through Envoy for as
// long as the kernel's switch holds, and past it afterwards, and none fails.
func TestAgentKilled(t *testing.T) { each(t, modes(), testAgentKilled) }

func testAgentKilled(t *testing.T, w *fixture) {
	w.start(t, "--redirect-timeout", switchTimeout.String())
	loads := w.startTraffic(t)
	w.untilPath(t, time.Second, true)
	check(t, w.agent.Kill())
	killed := time.Now()
	w.untilPath(t, time.Second, true)
	check(t, waitFor(t, switchTimeout+slack, func() error { return w.client.NotRedirected(limit(t)) }))
	took := time.Since(killed)
	t.Logf("the switch opened %s after the agent was killed, with a timeout of %s", took, switchTimeout)
	if took < switchTimeout/2 {
		t.Errorf("the switch opened %s after the agent was killed, want more than %s", took, switchTimeout/2)
	}
	w.untilPath(t, time.Second, false)
	results := loads.stop(t)
	w.allThroughEnvoy(t, results["HTTP/1.1, kept alive"])
	w.allThroughEnvoy(t, results["gRPC"])
}

// TestBothKilled kills agent and Envoy: new connections succeed once the
// kernel's switch has opened, with nobody's help; both back, redirection is too.
func TestBothKilled(t *testing.T) {
	each(t, []variant{hostBridged(), hostRouted(), podBridged()}, func(t *testing.T, w *fixture) {
		w.start(t, "--redirect-timeout", switchTimeout.String())
		w.untilPath(t, time.Second, true)
		check(t, w.agent.Kill())
		killed := time.Now()
		check(t, w.envoy.Kill())
		if r := call(t, w.client, w.probe()); r.Failed != 1 {
			t.Errorf("a call right after the kill went %v, want a failure: else this test shows nothing", r.Peers)
		}
		w.untilPath(t, switchTimeout+time.Second, false)
		t.Logf("calls succeed by kube-proxy's path %s after the kill, with a timeout of %s", time.Since(killed), switchTimeout)
		w.startAgent(t, "--redirect-timeout", switchTimeout.String())
		w.startEnvoy(t)
		must(w.agent.WaitRedirected(limit(t), w.client))(t)
		w.untilPath(t, time.Second, true)
	})
}

// probe is one call on a new connection.
func (w *fixture) probe() echo.Spec {
	return echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Requests: 1, Timeout: time.Second}
}

// fresh is steady load on new connections.
func (w *fixture) fresh() echo.Spec {
	return echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Rate: 100, Connections: 8, Fresh: true, Timeout: 2 * time.Second}
}

// TestEnvoyKilled kills Envoy alone, three times: new connections succeed within
// 200 ms, and go through Envoy again once there is one.
func TestEnvoyKilled(t *testing.T) {
	each(t, []variant{hostBridged(), hostRouted(), podBridged()}, func(t *testing.T, w *fixture) {
		w.start(t)
		load := must(w.client.Load(w.fresh()))(t)
		for range 3 {
			w.untilPath(t, time.Second, true)
			killed := time.Now()
			check(t, w.envoy.Kill())
			w.untilPath(t, 2*time.Second, false)
			w.startEnvoy(t)
			must(w.agent.WaitRedirected(limit(t), w.client))(t)
			w.untilPath(t, time.Second, true)
			w.checkLateFailures(t, load, killed)
		}
		must(load.Stop())(t)
	})
}

// checkLateFailures wants no request of the load to have failed that began more
// than 200 ms after Envoy was killed.
func (w *fixture) checkLateFailures(t *testing.T, load *lab.Load, killed time.Time) {
	t.Helper()
	// Long enough after the return that load shows whether it cost anything.
	check(t, waitFor(t, 5*time.Second, func() error {
		if len(load.Since(time.Now().Add(-slack))) == 0 || time.Since(killed) < 2*time.Second {
			return context.DeadlineExceeded
		}
		return nil
	}))
	if late := failures(load.Since(killed.Add(200 * time.Millisecond))); len(late) > 0 {
		t.Errorf("requests failed later than 200 ms after Envoy was killed at %s: %q", killed.Format("05.000"), late)
	}
	var last time.Duration
	for _, r := range load.Since(killed) {
		if r.Error != "" {
			last = r.At.Sub(killed)
		}
	}
	t.Logf("the last failed request began %s after Envoy was killed", last)
}

// waitFor is lab.Until with a time limit.
func waitFor(t *testing.T, within time.Duration, check func() error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return lab.Until(ctx, t.Name(), check)
}
