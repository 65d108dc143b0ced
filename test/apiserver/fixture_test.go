// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// The Service shop/web.
const (
	web4 = "10.96.0.10"
	web6 = "fd00:10:96::10"
)

// reads is all that the agent needs to be allowed.
func reads() []rbacv1.PolicyRule {
	verbs := []string{"list", "watch"}
	return []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"namespaces", "nodes", "pods", "services"}, Verbs: verbs},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: verbs},
	}
}

// fixture is a node with a client and two backends of shop/web, whose objects are
// in a real API server.
type fixture struct {
	*mirror
	server     *Server
	kubeconfig string
	node       *lab.Node
	client     *lab.Pod
	web        []*lab.Pod
	agent      *lab.Process
	envoy      *lab.Envoy
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	l, server := newLab(t)
	w := &fixture{mirror: newMirror(t, l, server), server: server, node: must(l.AddNode("node-a"))(t)}
	l.Objects().SetNamespace("shop", nil)
	w.client = must(w.node.AddPod("shop", "client", nil))(t)
	for i := range 2 {
		w.web = append(w.web, w.addBackend(t, fmt.Sprintf("web-%d", i+1)))
	}
	w.setWeb(t, w.web...)
	return w
}

func (w *fixture) addBackend(t testing.TB, name string) *lab.Pod {
	t.Helper()
	pod := must(w.node.AddPod("shop", name, nil))(t)
	check(t, pod.Serve(t.Context()))
	return pod
}

// setWeb publishes shop/web with these backends.
func (w *fixture) setWeb(t testing.TB, pods ...*lab.Pod) {
	t.Helper()
	w.lab.Objects().SetService(lab.Service{
		Namespace: "shop", Name: "web", Ports: lab.EchoPorts(), Pods: pods,
		IPs: []netip.Addr{netip.MustParseAddr(web4), netip.MustParseAddr(web6)},
	})
	w.publish(t)
}

// setNamespace publishes the namespace shop with this value of the label that
// enrols its pods; empty for none.
func (w *fixture) setNamespace(t testing.TB, redirect string) {
	t.Helper()
	labels := map[string]string{}
	if redirect != "" {
		labels["nodevoy.io/redirect"] = redirect
	}
	w.lab.Objects().SetNamespace("shop", labels)
	w.publish(t)
}

// start starts the agent, with no more rights than it needs, and Envoy.
func (w *fixture) start(t testing.TB) {
	t.Helper()
	if w.kubeconfig == "" {
		w.kubeconfig = w.server.Kubeconfig(t, reads()...)
	}
	w.agent = must(w.node.Start("agent.log", os.Getenv("NODEVOY_BIN"), "agent",
		"--redirect-mode", "host", "--pod-opt-in-namespaces", "shop", "--kubeconfig", w.kubeconfig, "--node-name", w.node.Name, "--run-dir", w.node.RunDir(), "--envoy-group", lab.EnvoyUser))(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the agent's log:\n%s", lastLines(w.agent.Output(), 30))
		}
	})
	w.envoy = must(w.node.StartEnvoy(t.Context()))(t)
}

// until waits up to limit for a condition and returns how long it took.
func until(t testing.TB, limit time.Duration, what string, condition func(context.Context) error) time.Duration {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	check(t, lab.Until(ctx, what, func() error { return condition(ctx) }))
	return time.Since(start)
}

// answers makes 60 requests of a client to shop/web on one connection, and
// returns an error unless exactly these pods answer and the way was as said.
func (w *fixture) answers(target string, throughEnvoy bool, pods ...*lab.Pod) func(context.Context) error {
	return func(ctx context.Context) error {
		result, err := w.client.Call(ctx, echo.Spec{Protocol: echo.HTTP1, Target: target, Requests: 60, Timeout: time.Second})
		if err != nil {
			return err
		}
		if result.Failed > 0 {
			return fmt.Errorf("%d of 60 requests to %s failed: %v", result.Failed, target, result.Errors)
		}
		var want, got []string
		for _, pod := range pods {
			want = append(want, pod.Namespace+"/"+pod.Name)
		}
		for pod := range result.Pods {
			got = append(got, pod)
		}
		slices.Sort(got)
		if !slices.Equal(want, got) {
			return fmt.Errorf("%s is answered by %v, want %v", target, got, want)
		}
		for peer := range result.Peers {
			ip, err := netip.ParseAddr(peer)
			if err != nil {
				return err
			}
			if direct := slices.Contains(w.client.IPs, ip.Unmap()); direct == throughEnvoy {
				return fmt.Errorf("calls to %s come from %s, through Envoy is to be %v", target, peer, throughEnvoy)
			}
		}
		return nil
	}
}
