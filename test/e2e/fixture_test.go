// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// The cluster IPs of the Service shop/web, as a client writes them.
const (
	web4 = "10.96.0.10"
	web6 = "[fd00:10:96::10]"
)

// fixture is a lab: on node-a an enrolled client, a pod that is not
// enrolled and one backend; two backends on node-b; all behind shop/web.
type fixture struct {
	*lab.Lab
	variant          variant
	node             *lab.Node
	client, outsider *lab.Pod
	web              []*lab.Pod
	agent            *lab.Agent
	envoy            *lab.Envoy
}

// newFixture makes the lab, without agent and Envoy.
func newFixture(t *testing.T, v variant) *fixture {
	t.Helper()
	l := must(lab.New(v.Options))(t)
	w := &fixture{Lab: l, variant: v}
	t.Cleanup(func() {
		if t.Failed() && w.agent != nil {
			t.Logf("the agent's log:\n%s", w.agent.Output())
		}
		if t.Failed() && w.envoy != nil {
			t.Logf("the end of Envoy's log:\n%s", w.envoy.LogEnd(15))
		}
		check(t, l.Close())
	})
	w.node = must(l.AddNode("node-a"))(t)
	other := must(l.AddNode("node-b"))(t)
	l.Objects().SetNamespace("shop", map[string]string{"nodevoy.io/redirect": "enabled"})
	l.Objects().SetNamespace("other", nil)
	w.client = must(w.node.AddPod("shop", "client", nil))(t)
	w.outsider = must(w.node.AddPod("other", "outsider", nil))(t)
	for i, node := range []*lab.Node{w.node, other, other} {
		pod := must(node.AddPod("shop", fmt.Sprintf("web-%d", i+1), nil))(t)
		check(t, pod.Serve(limit(t)))
		w.web = append(w.web, pod)
	}
	w.setWeb(t, w.web...)
	w.untilReachable(t)
	return w
}

// untilReachable waits until the client reaches every backend at every address:
// what the network itself needs to begin with is nobody's fault later.
func (w *fixture) untilReachable(t *testing.T) {
	t.Helper()
	for _, pod := range w.web {
		for _, ip := range pod.IPs {
			target := netip.AddrPortFrom(ip, echo.HTTPPort).String()
			check(t, waitFor(t, 20*time.Second, func() error {
				r, err := w.client.CallHere(t.Context(), echo.Spec{Protocol: echo.HTTP1, Target: target, Requests: 1, Timeout: 5 * time.Second})
				if err == nil && r.Failed > 0 {
					err = fmt.Errorf("call %s: %v", target, r.Errors)
				}
				return err
			}))
		}
	}
}

// setWeb makes the Service shop/web what it is, with these backends.
func (w *fixture) setWeb(t *testing.T, pods ...*lab.Pod) {
	t.Helper()
	w.Objects().SetService(lab.Service{
		Namespace: "shop", Name: "web", IPs: addrs("10.96.0.10", "fd00:10:96::10"), Ports: lab.EchoPorts(), Pods: pods,
	})
	check(t, w.Publish(limit(t)))
}

// start starts agent and Envoy and waits until the client is redirected.
func (w *fixture) start(t *testing.T, flags ...string) {
	t.Helper()
	w.startAgent(t, flags...)
	w.startEnvoy(t)
	must(w.agent.WaitRedirected(limit(t), w.client))(t)
	s := must(w.node.Status(limit(t)))(t)
	if want := w.variant; s.Redirect.Mode != string(want.Mode) || s.Redirect.Mechanism != want.mechanism {
		t.Errorf("the agent has chosen mode %q, mechanism %q, want %q, %q", s.Redirect.Mode, s.Redirect.Mechanism, want.Mode, want.mechanism)
	}
}

// netns is where the rules for the client's connections are.
func (w *fixture) netns() lab.Netns {
	if w.variant.Mode == lab.Pods {
		return w.client.Netns()
	}
	return w.node.Netns()
}

func (w *fixture) startAgent(t *testing.T, flags ...string) {
	t.Helper()
	w.agent = must(w.node.StartAgent(flags...))(t)
}

func (w *fixture) startEnvoy(t *testing.T) {
	t.Helper()
	w.envoy = must(w.node.StartEnvoy(limit(t)))(t)
}

// allThroughEnvoy reports a test failure unless every answered request of the
// client went through Envoy, and backends saw the address that they are to see
// then: the client's own in pod mode, another in host mode.
func (w *fixture) allThroughEnvoy(t *testing.T, r echo.Result) {
	t.Helper()
	if past := r.Requests - r.Failed - r.Relayed; past > 0 {
		t.Errorf("%d of %d requests went past Envoy", past, r.Requests)
	}
	for peer, n := range r.Peers {
		ip, err := netip.ParseAddr(peer)
		own := err == nil && slices.Contains(w.client.IPs, ip.Unmap())
		if want := w.variant.Mode == lab.Pods; own != want {
			t.Errorf("%d requests came from %s; from the client's own address: want %v", n, peer, want)
		}
	}
}

// untilPath waits until new connections of the client to shop/web succeed and
// go through Envoy, or past it.
func (w *fixture) untilPath(t *testing.T, within time.Duration, envoy bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	check(t, lab.Until(ctx, fmt.Sprintf("the path through Envoy to be %v", envoy), func() error {
		r, err := w.client.Call(limit(t), echo.Spec{
			Protocol: echo.HTTP1, Target: web4 + ":80", Requests: 1, Fresh: true, Timeout: time.Second,
		})
		if err != nil {
			return err
		}
		if r.Failed > 0 {
			return fmt.Errorf("the call failed: %v", r.Errors)
		}
		if (r.Relayed == 1) != envoy {
			return fmt.Errorf("the call came from %v, by Envoy: %v", r.Peers, !envoy)
		}
		return nil
	}))
}

// failures are the records of failed requests, for a message.
func failures(records []echo.Record) []string {
	var out []string
	for _, r := range records {
		if r.Error != "" {
			out = append(out, fmt.Sprintf("%s after %s: %s", r.At.Format("05.000"), r.Took, r.Error))
		}
	}
	return out[:min(len(out), 10)]
}

// stop ends a load and reports every failed request.
func stop(t *testing.T, what string, load *lab.Load) echo.Result {
	t.Helper()
	result := must(load.Stop())(t)
	if result.Failed > 0 {
		t.Errorf("%s: %d of %d requests failed: %q", what, result.Failed, result.Requests, failures(load.Records()))
	}
	return result
}

// must unwraps a value and its error; the error ends the test.
func must[T any](value T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return value
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
