// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// TestKindsOfPods is about pods that are unlike others and redirected like them.
func TestKindsOfPods(t *testing.T) {
	each(t, []variant{podBridged()}, func(t *testing.T, w *fixture) {
		w.start(t)
		add := func(spec lab.PodSpec) *lab.Pod {
			spec.Namespace = "shop"
			return must(w.node.Add(spec))(t)
		}
		t.Run("with several interfaces", func(t *testing.T) {
			pod := add(lab.PodSpec{Name: "wide"})
			must(pod.Run(limit(t), "sh", "-ec", `
ip link add net1 type bridge && ip link set net1 up && ip addr add 192.168.77.5/24 dev net1 && ip addr add fd77::5/64 dev net1 nodad
ip link add aaa0 type bridge && ip link set aaa0 up && ip addr add 172.31.9.9/16 dev aaa0`))(t)
			w.checkAppears(t, pod)
		})
		t.Run("without IPv6 in the kernel", func(t *testing.T) { w.checkAppears(t, add(lab.PodSpec{Name: "four", NoIPv6: true})) })
		t.Run("with a user namespace", func(t *testing.T) { w.checkAppears(t, add(lab.PodSpec{Name: "nobody", OwnUser: true})) })
		t.Run("that gains IPv6 later", func(t *testing.T) {
			pod := add(lab.PodSpec{Name: "late", IPv4Only: true})
			w.checkAppears(t, pod)
			check(t, pod.GainIPv6())
			w.checkAppears(t, pod)
		})
		t.Run("that is enrolled, let go, and enrolled again", func(t *testing.T) {
			pod := add(lab.PodSpec{Name: "torn"})
			w.checkAppears(t, pod)
			kept := must(pod.Load(echo.Spec{Protocol: echo.TCP, Target: web4 + ":7000", Rate: 50, Timeout: 2 * time.Second}))(t)
			fresh := must(pod.Load(w.fresh()))(t)
			traffic{"kept": kept, "fresh": fresh}.untilAnswered(t)
			w.Objects().SetPodLabels(pod, map[string]string{"nodevoy.io/redirect": "disabled"})
			check(t, w.PublishObjects())
			check(t, waitFor(t, appearLimit, func() error { return pod.NotRedirected(t.Context()) }))
			r := call(t, pod, w.probe())
			if r.Failed > 0 || r.Relayed > 0 {
				t.Errorf("a pod that was let go: %+v", r)
			}
			w.Objects().SetPodLabels(pod, nil)
			w.checkAppears(t, pod)
			stop(t, "new connections", fresh)
			if r := stop(t, "one connection", kept); r.Relayed != r.Requests {
				t.Errorf("%d of %d requests on one connection left Envoy", r.Requests-r.Relayed, r.Requests)
			}
		})
		t.Run("whose container flushes its rules", func(t *testing.T) { testFlushingPod(t, w, add(lab.PodSpec{Name: "vandal"})) })
	})
}

// checkAppears publishes what there is of a pod and wants it redirected soon,
// with its own addresses.
func (w *fixture) checkAppears(t *testing.T, pod *lab.Pod) {
	t.Helper()
	check(t, w.PublishObjects())
	t.Logf("pod %s, %v: redirected after %s", pod.Name, pod.IPs, w.untilSoonRedirected(t, pod))
	w.checkCaller(t, pod)
}

// testFlushingPod wants rules that a pod flushed repaired, counted, and counted as
// what they are: other pods' are untouched.
func testFlushingPod(t *testing.T, w *fixture, pod *lab.Pod) {
	w.checkAppears(t, pod)
	want := must(pod.Netns().Own(limit(t)))(t)
	before := must(w.node.Status(limit(t)))(t).Redirect.DriftRepaired
	must(pod.Run(limit(t), "sh", "-ec", "iptables -w -t nat -F; ip6tables -w -t nat -F; ipset flush nodevoy-pods4"))(t)
	check(t, waitFor(t, repairLimit, func() error {
		got := must(pod.Netns().Own(limit(t)))(t)
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			return fmt.Errorf("the pod's kernel has %q, want %q", got, want)
		}
		if n := must(w.node.Status(limit(t)))(t).Redirect.DriftRepaired; n <= before {
			return fmt.Errorf("the agent counts %d repairs, as before", n)
		}
		return nil
	}))
	w.checkCaller(t, pod)
}

// TestPodsLeftAlone is about pods that are not redirected although their
// namespace is enrolled: nothing is put into them, and the status says why.
func TestPodsLeftAlone(t *testing.T) {
	each(t, []variant{podBridged()}, func(t *testing.T, w *fixture) {
		const rule = "iptables -w -t nat -A OUTPUT -p tcp --dport 4567 -j REDIRECT --to-ports 1"
		pods := map[string]*lab.Pod{}
		// By the word that tells why.
		for why, spec := range map[string]lab.PodSpec{
			"istio-proxy":             {Name: "sidecar", Containers: []string{"app", "istio-proxy"}},
			"sidecar.istio.io/status": {Name: "injected", Annotations: map[string]string{"sidecar.istio.io/status": "{}"}},
			"linkerd-proxy":           {Name: "linked", Containers: []string{"linkerd-proxy", "app"}},
			"OUTPUT":                  {Name: "willed"},
		} {
			spec.Namespace = "shop"
			pods[why] = must(w.node.Add(spec))(t)
		}
		must(pods["OUTPUT"].Run(limit(t), "sh", "-ec", rule))(t)
		check(t, w.Publish(limit(t)))
		w.start(t)
		w.checkCaller(t, w.client)
		for why, pod := range pods {
			w.checkLeftAlone(t, pod, why)
		}
	})
}

// checkLeftAlone wants nothing in a pod's kernel, its calls past Envoy, and the
// reason in the status.
func (w *fixture) checkLeftAlone(t *testing.T, pod *lab.Pod, why ...string) {
	t.Helper()
	line := w.untilPodLine(t, pod, why...)
	t.Logf("the status says: %s", line)
	if own := must(pod.Netns().Own(limit(t)))(t); len(own) > 0 {
		t.Errorf("in pod %s there is %q", pod.Name, own)
	}
	r := call(t, pod, echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Requests: 5, Fresh: true})
	if r.Failed > 0 || r.Relayed > 0 {
		t.Errorf("calls of %s: %d failed, %d went through Envoy: %v", pod.Name, r.Failed, r.Relayed, r.Errors)
	}
}

// untilPodLine waits until the status has a line about a pod with all of these
// words, and returns it.
func (w *fixture) untilPodLine(t *testing.T, pod *lab.Pod, words ...string) string {
	t.Helper()
	var found string
	check(t, waitFor(t, 10*time.Second, func() error {
		text, err := w.node.StatusText(t.Context())
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == pod.Namespace && fields[1] == pod.Name && containsAll(line, words...) {
				found = strings.TrimSpace(line)
				return nil
			}
		}
		return fmt.Errorf("no line of the status has %s/%s and %q:\n%s", pod.Namespace, pod.Name, words, text)
	}))
	return found
}

// TestPodsOwnRules has a pod write rules of its own while it is redirected, and
// take them away: it is let go and engaged again, other pods never.
func TestPodsOwnRules(t *testing.T) {
	each(t, []variant{podBridged()}, func(t *testing.T, w *fixture) {
		own := must(w.node.AddPod("shop", "willed", nil))(t)
		check(t, w.Publish(limit(t)))
		w.start(t)
		must(w.agent.WaitRedirected(limit(t), own))(t)
		load := must(own.Load(w.fresh()))(t)
		for range 2 {
			must(own.Run(limit(t), "iptables", "-w", "-t", "nat", "-I", "OUTPUT", "-p", "tcp", "--dport", "4567", "-j", "REDIRECT", "--to-ports", "1"))(t)
			check(t, waitFor(t, repairLimit+slack, func() error { return own.NotRedirected(t.Context()) }))
			t.Logf("the status says: %s", w.untilPodLine(t, own, "OUTPUT"))
			check(t, w.client.Redirected(t.Context()))
			must(own.Run(limit(t), "iptables", "-w", "-t", "nat", "-D", "OUTPUT", "-p", "tcp", "--dport", "4567", "-j", "REDIRECT", "--to-ports", "1"))(t)
			must(w.agent.WaitRedirected(limit(t), own))(t)
		}
		stop(t, "calls of the pod with rules", load)
	})
}

// TestTwoClaimOneAddress has a second network namespace with a pod's addresses:
// which of them is the pod can't be told, so it isn't redirected, until only one
// is left. Others are.
func TestTwoClaimOneAddress(t *testing.T) {
	each(t, []variant{podBridged()}, func(t *testing.T, w *fixture) {
		pod := must(w.node.AddPod("shop", "twin", nil))(t)
		impostor := must(w.node.AddStranger("impostor", pod.IPs[0]))(t)
		check(t, w.Publish(limit(t)))
		w.start(t)
		w.checkCaller(t, w.client)
		t.Logf("the status says: %s", w.untilPodLine(t, pod, pod.NetnsPath(), "cni-impostor"))
		check(t, pod.NotRedirected(t.Context()))
		check(t, impostor.Remove())
		must(w.agent.WaitRedirected(limit(t), pod))(t)
		w.checkCaller(t, pod)
		// One that comes later changes nothing: the pod's own is known.
		impostor = must(w.node.AddStranger("impostor", pod.IPs[0]))(t)
		t.Cleanup(func() { check(t, impostor.Remove()) })
		w.setWeb(t, w.web[:2]...)
		w.untilSettled(t)
		check(t, pod.Redirected(t.Context()))
		w.checkCaller(t, pod)
	})
}

// containsAll says whether a text has all of these.
func containsAll(text string, all ...string) bool {
	for _, part := range all {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}
