// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

func TestEnrolment(t *testing.T) {
	label := func(value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Labels = labels(value) }
	}
	phase := func(phase corev1.PodPhase) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Status.Phase = phase }
	}
	host := func(p *corev1.Pod) { p.Spec.HostNetwork = true }
	in := func(ns string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Namespace = ns } }
	containers := func(names ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Containers = named(names) }
	}
	inits := func(names ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.InitContainers = named(names) }
	}
	annotation := func(key, value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations = map[string]string{key: value} }
	}
	for _, test := range []struct {
		name      string
		namespace *corev1.Namespace
		pod       *corev1.Pod
		want      bool
		reason    string
		problem   string
	}{
		{
			name: "namespace enabled", namespace: namespace("shop", "enabled"), pod: pod("p", "10.1.0.1"),
			want: true, reason: "namespace label nodevoy.io/redirect=enabled",
		},
		{
			name: "namespace without label", namespace: namespace("shop", ""), pod: pod("p", "10.1.0.1"),
			reason: "namespace is not labelled nodevoy.io/redirect=enabled",
		},
		{
			name: "namespace disabled", namespace: namespace("shop", "disabled"), pod: pod("p", "10.1.0.1"),
			reason: "namespace label nodevoy.io/redirect=disabled",
		},
		{
			name: "namespace deleted, pod remains", namespace: namespace("other", "enabled"), pod: pod("p", "10.1.0.1"),
			reason: "namespace does not exist (deleted, or not seen yet)",
		},
		{
			name: "namespace terminating",
			namespace: with(namespace("shop", "enabled"), func(ns *corev1.Namespace) {
				ns.DeletionTimestamp = new(created(1))
			}),
			pod: pod("p", "10.1.0.1"), want: true, reason: "namespace label nodevoy.io/redirect=enabled",
		},
		{
			name: "pod opts in", namespace: namespace("shop", ""), pod: with(pod("p", "10.1.0.1"), label("enabled")),
			want: true, reason: "own label nodevoy.io/redirect=enabled",
		},
		{
			name: "pod opts in against its namespace", namespace: namespace("shop", "disabled"),
			pod: with(pod("p", "10.1.0.1"), label("enabled")), reason: "namespace label nodevoy.io/redirect=disabled",
		},
		{
			name: "pod opts out", namespace: namespace("shop", "enabled"),
			pod: with(pod("p", "10.1.0.1"), label("disabled")), reason: "own label nodevoy.io/redirect=disabled",
		},
		{
			name: "pod label invalid", namespace: namespace("shop", "enabled"),
			pod: with(pod("p", "10.1.0.1"), label("yes")), want: true,
			reason:  "namespace label nodevoy.io/redirect=enabled",
			problem: "Pod shop/p metadata.labels[nodevoy.io/redirect]: value yes is neither enabled nor disabled; treated as not set",
		},
		{
			name: "namespace label invalid", namespace: namespace("shop", "Enabled"), pod: pod("p", "10.1.0.1"),
			reason:  "namespace is not labelled nodevoy.io/redirect=enabled",
			problem: "Namespace /shop metadata.labels[nodevoy.io/redirect]: value Enabled is neither enabled nor disabled; treated as not set",
		},
		{
			name: "host network", namespace: namespace("shop", "enabled"), pod: with(pod("p", "10.1.0.1"), host),
			reason: "uses the node's network (hostNetwork)",
		},
		{
			name: "host network opting in", namespace: namespace("shop", ""),
			pod: with(pod("p", "10.1.0.1"), host, label("enabled")), reason: "uses the node's network (hostNetwork)",
		},
		{
			name: "succeeded", namespace: namespace("shop", "enabled"),
			pod: with(pod("p", "10.1.0.1"), phase(corev1.PodSucceeded)), reason: "finished (Succeeded)",
		},
		{
			name: "failed", namespace: namespace("shop", "enabled"),
			pod: with(pod("p", "10.1.0.1"), phase(corev1.PodFailed)), reason: "finished (Failed)",
		},
		{
			name: "init containers run", namespace: namespace("shop", "enabled"),
			pod:  with(pod("p", "10.1.0.1"), phase(corev1.PodPending)),
			want: true, reason: "namespace label nodevoy.io/redirect=enabled",
		},
		{name: "no IP yet", namespace: namespace("shop", "enabled"), pod: pod("p"), reason: "no IP yet"},
		{
			name: "only podIP", namespace: namespace("shop", "enabled"),
			pod:  with(pod("p"), func(p *corev1.Pod) { p.Status.PodIP = "10.1.0.1" }),
			want: true, reason: "namespace label nodevoy.io/redirect=enabled",
		},
		{
			name: "excluded namespace", namespace: namespace("kube-system", "enabled"),
			pod: with(pod("p", "10.1.0.1"), in("kube-system"), label("enabled")), reason: "namespace is excluded",
		},
		{
			name: "node's own IP", namespace: namespace("shop", "enabled"), pod: pod("p", "10.9.9.9"),
			reason: "10.9.9.9 is the node's own IP",
		},
		{
			name: "bad IP", namespace: namespace("shop", "enabled"), pod: pod("p", "10.1.0.300"),
			reason:  "no IP yet",
			problem: "Pod shop/p status.podIPs[0].ip: 10.1.0.300 is not an IP address; not redirected",
		},
		{
			name: "link-local IP", namespace: namespace("shop", "enabled"), pod: pod("p", "fe80::1", "10.1.0.1"),
			want: true, reason: "namespace label nodevoy.io/redirect=enabled",
			problem: "Pod shop/p status.podIPs[0].ip: fe80::1 is a link-local address; not redirected",
		},
		{
			name: "istio sidecar", namespace: namespace("shop", "enabled"),
			pod: with(pod("p", "10.1.0.1"), containers("main", "istio-proxy")), reason: "has a proxy of Istio (container istio-proxy)",
		},
		{
			name: "linkerd sidecar", namespace: namespace("shop", "enabled"),
			pod: with(pod("p", "10.1.0.1"), containers("linkerd-proxy", "main")), reason: "has a proxy of Linkerd (container linkerd-proxy)",
		},
		{
			name: "istio sidecar among the init containers", namespace: namespace("shop", "enabled"),
			pod:    with(pod("p", "10.1.0.1"), containers("main"), inits("istio-init", "istio-proxy")),
			reason: "has a proxy of Istio (init container istio-proxy)",
		},
		{
			name: "linkerd sidecar among the init containers", namespace: namespace("shop", "enabled"),
			pod:    with(pod("p", "10.1.0.1"), containers("main"), inits("linkerd-proxy")),
			reason: "has a proxy of Linkerd (init container linkerd-proxy)",
		},
		{
			name: "istio annotation", namespace: namespace("shop", "enabled"),
			pod:    with(pod("p", "10.1.0.1"), containers("main"), annotation("sidecar.istio.io/status", "{}")),
			reason: "has a proxy of Istio (annotation sidecar.istio.io/status)",
		},
		{
			name: "linkerd annotation without a value", namespace: namespace("shop", "enabled"),
			pod:    with(pod("p", "10.1.0.1"), containers("main"), annotation("linkerd.io/proxy-version", "")),
			reason: "has a proxy of Linkerd (annotation linkerd.io/proxy-version)",
		},
		{
			name: "sidecar in a pod that opts in", namespace: namespace("shop", ""),
			pod:    with(pod("p", "10.1.0.1"), label("enabled"), containers("istio-proxy")),
			reason: "has a proxy of Istio (container istio-proxy)",
		},
		{
			name: "sidecar in a pod nobody asked to redirect", namespace: namespace("shop", ""),
			pod:    with(pod("p", "10.1.0.1"), containers("istio-proxy")),
			reason: "namespace is not labelled nodevoy.io/redirect=enabled",
		},
		{
			name: "sidecar and no IP yet", namespace: namespace("shop", "enabled"),
			pod: with(pod("p"), containers("istio-proxy")), reason: "has a proxy of Istio (container istio-proxy)",
		},
		{
			name: "only a mesh's other names", namespace: namespace("shop", "enabled"),
			pod:  with(pod("p", "10.1.0.1"), containers("istio-proxy-test"), inits("istio-init"), annotation("sidecar.istio.io/inject", "false")),
			want: true, reason: "namespace label nodevoy.io/redirect=enabled",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			node := build(model.Inputs{
				Node: &corev1.Node{Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
					{Type: corev1.NodeHostName, Address: "node-1.example.org"},
					{Type: corev1.NodeInternalIP, Address: "10.9.9.9"},
				}}},
				Namespaces: []*corev1.Namespace{test.namespace},
				Pods:       []*corev1.Pod{test.pod},
			})
			if len(node.Pods) != 1 {
				t.Fatalf("got %d pods, want 1", len(node.Pods))
			}
			if got := node.Pods[0]; got.Enrolled != test.want || got.Reason != test.reason {
				t.Errorf("got %v, %q; want %v, %q", got.Enrolled, got.Reason, test.want, test.reason)
			}
			var want []string
			if test.problem != "" {
				want = []string{test.problem}
			}
			if diff := cmp.Diff(want, texts(node.Problems), noEmpty...); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOwnLabelInHostMode is a pod that opts in where Envoy calls backends as the node.
func TestOwnLabelInHostMode(t *testing.T) {
	const ignored = "own label ignored in host mode: "
	for _, test := range []struct {
		name, namespace, own string
		optIn                []string
		want                 bool
		reason               string
	}{
		{name: "pod opts in", own: "enabled", reason: ignored + "namespace is not labelled nodevoy.io/redirect=enabled"},
		{name: "in an enrolled namespace", namespace: "enabled", own: "enabled", want: true, reason: "namespace label nodevoy.io/redirect=enabled"},
		{name: "against its namespace", namespace: "disabled", own: "enabled", reason: "namespace label nodevoy.io/redirect=disabled"},
		{name: "pod opts out", namespace: "enabled", own: "disabled", reason: "own label nodevoy.io/redirect=disabled"},
		{name: "no label", namespace: "enabled", want: true, reason: "namespace label nodevoy.io/redirect=enabled"},
		{name: "unknown value", own: "on", reason: "namespace is not labelled nodevoy.io/redirect=enabled"},
		{name: "namespace not seen", namespace: "missing", own: "enabled", reason: ignored + "namespace does not exist (deleted, or not seen yet)"},
		{name: "where it may", own: "enabled", optIn: []string{"shop"}, want: true, reason: "own label nodevoy.io/redirect=enabled"},
		{name: "where all may", own: "enabled", optIn: []string{"*"}, want: true, reason: "own label nodevoy.io/redirect=enabled"},
		{name: "where others may", own: "enabled", optIn: []string{"sho", "web"}, reason: ignored + "namespace is not labelled nodevoy.io/redirect=enabled"},
		{name: "where it may, against its namespace", namespace: "disabled", own: "enabled", optIn: []string{"*"}, reason: "namespace label nodevoy.io/redirect=disabled"},
	} {
		t.Run(test.name, func(t *testing.T) {
			opts := model.DefaultOptions()
			opts.HostMode, opts.PodOptInNamespaces = true, test.optIn
			in := model.Inputs{NodeName: nodeName, Pods: []*corev1.Pod{with(pod("p", "10.1.0.1"), func(p *corev1.Pod) { p.Labels = labels(test.own) })}}
			if test.namespace != "missing" {
				in.Namespaces = []*corev1.Namespace{namespace("shop", test.namespace)}
			}
			if got := model.Build(in, opts).Pods[0]; got.Enrolled != test.want || got.Reason != test.reason {
				t.Errorf("got %v, %q; want %v, %q", got.Enrolled, got.Reason, test.want, test.reason)
			}
		})
	}
}

// named are containers of these names.
func named(names []string) []corev1.Container {
	var list []corev1.Container
	for _, name := range names {
		list = append(list, corev1.Container{Name: name})
	}
	return list
}

// texts writes problems on one line each.
func texts(problems []model.Problem) []string {
	var list []string
	for _, p := range problems {
		list = append(list, p.Kind+" "+p.Namespace+"/"+p.Name+" "+p.Field+": "+p.Detail)
	}
	return list
}

func TestPodsOfOtherNodesAreIgnored(t *testing.T) {
	elsewhere := with(pod("elsewhere", "10.1.0.1"), func(p *corev1.Pod) { p.Spec.NodeName = "node-2" })
	pending := with(pod("pending"), func(p *corev1.Pod) { p.Spec.NodeName = "" })
	in := model.Inputs{Pods: []*corev1.Pod{elsewhere, nil, pending}}
	if got := build(in).Pods; len(got) != 0 {
		t.Errorf("got %v, want no pods", got)
	}
	if got := model.Build(in, model.DefaultOptions()).Pods; len(got) != 0 {
		t.Errorf("without a node name: got %v, want no pods", got)
	}
}

func TestPodIPOwner(t *testing.T) {
	minute := func(m int) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.CreationTimestamp = created(m) }
	}
	going := func(p *corev1.Pod) { p.DeletionTimestamp = new(created(30)) }
	finished := func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }
	const byNamespace = "namespace label nodevoy.io/redirect=enabled"
	type verdict struct {
		Name, IPs, Reason string
		Enrolled          bool
	}
	for _, test := range []struct {
		name string
		pods []*corev1.Pod
		want []verdict
	}{
		{
			name: "finished pod still has it in its status",
			pods: []*corev1.Pod{with(pod("a", "10.1.0.1"), minute(9), finished), with(pod("b", "10.1.0.1"), minute(1))},
			want: []verdict{
				{Name: "a", Reason: "finished (Succeeded)"},
				{Name: "b", IPs: "10.1.0.1", Enrolled: true, Reason: byNamespace},
			},
		},
		{
			name: "pod on its way out loses to the one that stays, even if it is newer",
			pods: []*corev1.Pod{with(pod("a", "10.1.0.1"), minute(9), going), with(pod("b", "10.1.0.1"), minute(1))},
			want: []verdict{
				{Name: "a", Reason: "IP 10.1.0.1 now belongs to shop/b"},
				{Name: "b", IPs: "10.1.0.1", Enrolled: true, Reason: byNamespace},
			},
		},
		{
			name: "newer pod wins",
			pods: []*corev1.Pod{with(pod("a", "10.1.0.1"), minute(1)), with(pod("b", "10.1.0.1"), minute(2))},
			want: []verdict{
				{Name: "a", Reason: "IP 10.1.0.1 now belongs to shop/b"},
				{Name: "b", IPs: "10.1.0.1", Enrolled: true, Reason: byNamespace},
			},
		},
		{
			name: "same age, first by name",
			pods: []*corev1.Pod{pod("b", "10.1.0.1"), pod("a", "10.1.0.1")},
			want: []verdict{
				{Name: "a", IPs: "10.1.0.1", Enrolled: true, Reason: byNamespace},
				{Name: "b", Reason: "IP 10.1.0.1 now belongs to shop/a"},
			},
		},
		{
			name: "one of two families lost",
			pods: []*corev1.Pod{with(pod("a", "fd00::1", "10.1.0.1"), minute(1)), with(pod("b", "10.1.0.1"), minute(2))},
			want: []verdict{
				{Name: "a", IPs: "fd00::1", Enrolled: true, Reason: byNamespace + "; IP 10.1.0.1 now belongs to shop/b"},
				{Name: "b", IPs: "10.1.0.1", Enrolled: true, Reason: byNamespace},
			},
		},
		{
			name: "owner that opted out keeps its IP from being redirected",
			pods: []*corev1.Pod{
				with(pod("a", "10.1.0.1"), minute(1)),
				with(pod("b", "10.1.0.1"), minute(2), func(p *corev1.Pod) { p.Labels = labels("disabled") }),
			},
			want: []verdict{
				{Name: "a", Reason: "IP 10.1.0.1 now belongs to shop/b"},
				{Name: "b", IPs: "10.1.0.1", Reason: "own label nodevoy.io/redirect=disabled"},
			},
		},
		{
			name: "v4 before v6, each once",
			pods: []*corev1.Pod{pod("a", "fd00::1", "10.1.0.1", "::ffff:10.1.0.1", "fd00:0::1")},
			want: []verdict{{Name: "a", IPs: "10.1.0.1 fd00::1", Enrolled: true, Reason: byNamespace}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []verdict
			for _, p := range build(model.Inputs{
				Namespaces: []*corev1.Namespace{namespace("shop", "enabled")}, Pods: test.pods,
			}).Pods {
				v := verdict{Name: p.Name, Enrolled: p.Enrolled, Reason: p.Reason}
				for i, ip := range p.IPs {
					if i > 0 {
						v.IPs += " "
					}
					v.IPs += ip.String()
				}
				got = append(got, v)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("pods (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNamespaceIsFoundByName(t *testing.T) {
	// Every object says which it is by name; times and UIDs don't matter.
	ns := with(namespace("shop", "enabled"), func(ns *corev1.Namespace) { ns.UID = "1" })
	other := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "p"},
		Spec:       corev1.PodSpec{NodeName: nodeName},
		Status:     corev1.PodStatus{PodIP: "10.1.0.2"},
	}
	node := build(model.Inputs{
		Namespaces: []*corev1.Namespace{nil, ns, namespace("other", "")}, Pods: []*corev1.Pod{pod("p", "10.1.0.1"), other},
	})
	got := map[string]bool{}
	for _, p := range node.Pods {
		got[p.Namespace] = p.Enrolled
	}
	if diff := cmp.Diff(map[string]bool{"shop": true, "other": false}, got); diff != "" {
		t.Errorf("enrolled (-want +got):\n%s", diff)
	}
}
