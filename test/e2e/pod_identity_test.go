// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// TestPodIdentity has backends that take connections from the client pod's own
// addresses only, as a NetworkPolicy that selects the pod does: all its calls
// come through Envoy and past the filter.
func TestPodIdentity(t *testing.T) {
	each(t, []variant{podBridged(), podRouted()}, func(t *testing.T, w *fixture) {
		for _, pod := range w.web {
			admitOnly(t, pod, w.client)
		}
		w.start(t)
		for _, ip := range []string{web4, web6} {
			for protocol, port := range map[string]int{echo.HTTP10: 80, echo.HTTP1: 8080, echo.H2C: 80, echo.GRPC: 9090, echo.TCP: 7000} {
				spec := echo.Spec{Protocol: protocol, Target: fmt.Sprintf("%s:%d", ip, port), Requests: 30, Fresh: true, Timeout: 2 * time.Second}
				r := call(t, w.client, spec)
				if r.Failed > 0 || len(r.Pods) != 3 {
					t.Errorf("%s to %s: %d of 30 failed, pods %v: %v", protocol, spec.Target, r.Failed, r.Pods, r.Errors)
				}
				w.allThroughEnvoy(t, r)
			}
			// Else the filter lets everybody in, and the test shows nothing.
			r := call(t, w.outsider, echo.Spec{Protocol: echo.HTTP1, Target: ip + ":80", Requests: 1, Timeout: 500 * time.Millisecond})
			if r.Failed != 1 {
				t.Errorf("a pod that the backends don't admit was answered by %v", r.Pods)
			}
		}
	})
}

// admitOnly has a pod take connections to its servers from one other pod only.
func admitOnly(t *testing.T, pod, from *lab.Pod) {
	t.Helper()
	for i, iptables := range []string{"iptables", "ip6tables"} {
		rule := fmt.Sprintf("%s -w -A INPUT -p tcp -m multiport --dports %d,%d,%d ! -s %s -j DROP",
			iptables, echo.HTTPPort, echo.GRPCPort, echo.TCPPort, from.IPs[i])
		must(pod.Run(limit(t), "sh", "-c", rule))(t)
	}
}

// TestNoSharing has two pods call the same Service at the same time: Envoy is
// never to use a connection made for one of them for a request of the other.
func TestNoSharing(t *testing.T) {
	each(t, []variant{podBridged()}, func(t *testing.T, w *fixture) {
		second := must(w.node.AddPod("shop", "second", nil))(t)
		check(t, w.Publish(limit(t)))
		w.start(t)
		must(w.agent.WaitRedirected(limit(t), second))(t)
		type pair struct {
			from *lab.Pod
			load *lab.Load
		}
		var loads []pair
		for _, from := range []*lab.Pod{w.client, second} {
			for _, protocol := range []string{echo.HTTP1, echo.H2C} {
				spec := echo.Spec{Protocol: protocol, Target: web4 + ":80", Requests: 500, Connections: 4, Fresh: protocol == echo.HTTP1}
				loads = append(loads, pair{from, must(from.Load(spec))(t)})
			}
		}
		for _, p := range loads {
			check(t, waitFor(t, time.Minute, func() error {
				if n := len(p.load.Records()); n < 500 {
					return fmt.Errorf("only %d requests of %s are done", n, p.from.Name)
				}
				return nil
			}))
			r := stop(t, p.from.Name, p.load)
			if r.Relayed != r.Requests || len(r.Peers) != 1 || r.Peers[p.from.IPs[0].String()] != r.Requests {
				t.Errorf("%d requests of %s, %s: %d by Envoy, seen to come from %v", r.Requests, p.from.Name, p.from.IPs[0], r.Relayed, r.Peers)
			}
		}
	})
}

// TestAddressAtOnceAgain removes a pod whose calls are under way and gives its
// addresses to the next pod at once: the new one is redirected soon, under its
// own name; no other pod notices; nothing is left of the old one.
func TestAddressAtOnceAgain(t *testing.T) {
	each(t, []variant{podBridged(), podRouted()}, func(t *testing.T, w *fixture) {
		last := must(w.node.AddPod("shop", "pod-0", nil))(t)
		check(t, w.Publish(limit(t)))
		w.start(t)
		loads := w.startTraffic(t)
		for round := range 3 {
			must(w.agent.WaitRedirected(limit(t), last))(t)
			doomed := must(last.Load(w.fresh()))(t)
			check(t, waitFor(t, 5*time.Second, func() error {
				if len(doomed.Records()) < 5 {
					return fmt.Errorf("%d requests are done", len(doomed.Records()))
				}
				return nil
			}))
			ips := last.IPs
			check(t, last.Unplug())
			// Its requests fail, as they must without a network.
			_, _ = doomed.Stop()
			check(t, last.Remove())
			last = must(w.node.AddPod("shop", fmt.Sprintf("pod-%d", round+1), nil))(t)
			if last.IPs[0] != ips[0] || last.IPs[1] != ips[1] {
				t.Fatalf("the new pod has %v, want %v: the test shows nothing", last.IPs, ips)
			}
			check(t, w.PublishObjects())
			t.Logf("round %d: redirected after %s", round, w.untilSoonRedirected(t, last))
			w.checkCaller(t, last)
		}
		for what, r := range loads.stop(t) {
			w.allThroughEnvoy(t, r)
			t.Logf("%s: %d requests, max %s", what, r.Requests, r.Max)
		}
		w.untilNothingOfOthers(t, last)
	})
}

// appearLimit is within what time a pod that has come is to be redirected; it
// takes a tenth of a second, the rest is for a small machine that is busy.
const appearLimit = 10 * time.Second

// untilSoonRedirected waits until a pod, whose object was published just now, is
// redirected.
func (w *fixture) untilSoonRedirected(t *testing.T, pod *lab.Pod) time.Duration {
	t.Helper()
	took := must(w.agent.WaitRedirected(limit(t), pod))(t)
	if took > appearLimit {
		t.Errorf("pod %s was redirected %s after it came, want within %s", pod.Name, took, appearLimit)
	}
	return took
}

// checkCaller wants the calls of a pod to go through Envoy, to come from its own
// addresses, and to be logged under its name.
func (w *fixture) checkCaller(t *testing.T, pod *lab.Pod) {
	t.Helper()
	for i, target := range []string{web4 + ":80", web6 + ":80"}[:len(pod.IPs)] {
		r := call(t, pod, echo.Spec{Protocol: echo.HTTP1, Target: target, Requests: 10, Fresh: true, Timeout: 2 * time.Second})
		if r.Failed > 0 || r.Relayed != 10 || r.Peers[pod.IPs[i].String()] != 10 {
			t.Errorf("calls of %s, %s: %d of 10 failed, %d by Envoy, seen to come from %v: %v",
				pod.Name, pod.IPs[i], r.Failed, r.Relayed, r.Peers, r.Errors)
		}
	}
	w.untilLogged(t, "shop/web/http", pod.IPs[0], "shop/"+pod.Name)
}

// untilLogged waits for a line of the access log with all of these.
func (w *fixture) untilLogged(t *testing.T, service string, from netip.Addr, caller string) {
	t.Helper()
	check(t, waitFor(t, 5*time.Second, func() error {
		for _, line := range w.envoy.AccessLog() {
			if containsAll(line, service, from.String()+":", caller) {
				return nil
			}
		}
		return fmt.Errorf("no line of the access log has %s, %s and %s", service, from, caller)
	}))
}
