// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// endpointSlice is one of a Service of the namespace, with an endpoint for each pod.
func endpointSlice(namespace string, pods map[string]string) *discoveryv1.EndpointSlice {
	node := "node-b"
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "s"}, AddressType: discoveryv1.AddressTypeIPv4}
	for name, ip := range pods {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{ip}, NodeName: &node, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: name},
		})
	}
	return s
}

func TestDirectory(t *testing.T) {
	dns := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-dns"}, Spec: corev1.ServiceSpec{
		ClusterIPs: []string{"10.96.0.10", "fd00:96::a"},
		Ports:      []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "dns-tcp", Port: 53}},
	}}
	other := endpointSlice("shop", map[string]string{"agent-1": "172.30.0.2", "db-0": "10.244.2.7"})
	other.Endpoints = append(other.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.244.2.8"}}, discoveryv1.Endpoint{})
	d := model.Build(model.Inputs{
		NodeName: "node-a", Services: []*corev1.Service{dns, nil},
		EndpointSlices: []*discoveryv1.EndpointSlice{other, endpointSlice("shop", map[string]string{"agent-2": "172.30.0.2"}), nil, other},
	}, model.DefaultOptions()).Directory()
	for ip, want := range map[string]string{
		"10.244.2.7": "shop/db-0 on node-b",
		"172.30.0.2": "", // The node's, of two pods.
		"10.244.2.8": "", // No pod.
		"10.244.2.9": "",
	} {
		b, ok := d.Pod(netip.MustParseAddr(ip))
		got := ""
		if ok {
			got = fmt.Sprintf("%s/%s on %s", b.Namespace, b.Pod, b.Node)
		}
		if got != want {
			t.Errorf("%s is %q, want %q", ip, got, want)
		}
	}
	for at, want := range map[string]string{"10.96.0.10:53": "kube-system/kube-dns/dns", "[fd00:96::a]:53": "kube-system/kube-dns/dns", "10.96.0.10:54": ""} {
		port, ok := d.UDP(netip.MustParseAddrPort(at))
		if got := port.String(); ok != (want != "") || ok && got != want {
			t.Errorf("%s is %q, want %q", at, got, want)
		}
	}
}

// BenchmarkDirectory is of 100,000 endpoints in 10,000 Services.
func BenchmarkDirectory(b *testing.B) {
	in := model.Inputs{NodeName: "node-a"}
	for i := range 10_000 {
		pods := map[string]string{}
		for j := range 10 {
			n := 10*i + j
			pods[fmt.Sprintf("pod-%d", n)] = netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}).String()
		}
		in.EndpointSlices = append(in.EndpointSlices, endpointSlice("shop", pods))
		in.Services = append(in.Services, &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10", Ports: []corev1.ServicePort{{Port: 80}}}})
	}
	node := model.Build(model.Inputs{NodeName: "node-a", EndpointSlices: in.EndpointSlices, Services: in.Services}, model.DefaultOptions())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d := node.Directory()
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
		d = node.Directory()
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB-kept")
	runtime.KeepAlive(d)
}

func TestIfLabelled(t *testing.T) {
	pod := func(namespace, name, ip string, labels map[string]string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
			Spec:       corev1.PodSpec{NodeName: "node-a"}, Status: corev1.PodStatus{PodIP: ip},
		}
	}
	host := pod("shop", "host", "172.30.0.1", nil)
	host.Spec.HostNetwork = true
	node := model.Build(model.Inputs{
		NodeName: "node-a",
		Namespaces: []*corev1.Namespace{
			{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
			{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}},
			{ObjectMeta: metav1.ObjectMeta{Name: "in", Labels: map[string]string{model.RedirectLabel: model.RedirectEnabled}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "out", Labels: map[string]string{model.RedirectLabel: model.RedirectDisabled}}},
		},
		Pods: []*corev1.Pod{
			host, pod("shop", "web", "10.244.1.2", nil), pod("shop", "no", "10.244.1.3", map[string]string{model.RedirectLabel: model.RedirectDisabled}),
			pod("kube-system", "dns", "10.244.1.4", nil), pod("in", "a", "10.244.1.5", nil), pod("out", "b", "10.244.1.6", nil),
		},
	}, model.DefaultOptions())
	got := map[string]string{}
	for _, p := range node.IfLabelled() {
		got[p.Namespace+"/"+p.Name] = ""
		if !p.Enrolled {
			got[p.Namespace+"/"+p.Name] = p.Reason
		}
	}
	if diff := cmp.Diff(map[string]string{
		"shop/web": "", "in/a": "", "out/b": "",
		"shop/host":       "uses the node's network (hostNetwork)",
		"shop/no":         "own label nodevoy.io/redirect=disabled",
		"kube-system/dns": "namespace is excluded",
	}, got); diff != "" {
		t.Error(diff)
	}
	for _, p := range node.Pods {
		if p.Enrolled != (p.Namespace == "in") {
			t.Errorf("%s/%s is enrolled: %t", p.Namespace, p.Name, p.Enrolled)
		}
	}
}
