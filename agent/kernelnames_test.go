// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/model"
)

// namedNode has the Service kube-system/dns, which is bypassed, with one pod of this name.
func namedNode(pod string) *model.Node {
	meta := metav1.ObjectMeta{Namespace: "kube-system", Name: "dns", Labels: map[string]string{discoveryv1.LabelServiceName: "dns"}}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{
		{Addresses: []string{"10.244.2.7"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod}},
	}}
	return model.Build(model.Inputs{
		NodeName: "node-a", EndpointSlices: []*discoveryv1.EndpointSlice{slice},
		Services: []*corev1.Service{{ObjectMeta: meta, Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.10", Ports: []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "tcp", Port: 53}},
		}}},
	}, model.DefaultOptions())
}

func TestDirectoryNames(t *testing.T) {
	now, d := time.Unix(1_800_000_000, 0), directory{}
	name := func(node *model.Node, protocol string) (service, pod string) {
		f := flow.Flow{
			Protocol: protocol, Frontend: netip.MustParseAddrPort("10.96.0.10:53"),
			Backend: flow.Peer{Address: netip.MustParseAddrPort("10.244.2.7:5353")},
		}
		flow.NewNamer(node).Name(&f)
		d.name(&f, node, now)
		return f.Service.String(), f.Backend.Pod
	}
	node := namedNode("dns-1")
	if service, pod := name(node, "UDP"); service != "kube-system/dns/dns" || pod != "dns-1" {
		t.Errorf("UDP: %q on %q", service, pod)
	}
	if service, pod := name(node, "TCP"); service != "kube-system/dns/tcp" || pod != "dns-1" {
		t.Errorf("TCP to a bypassed Service: %q on %q", service, pod)
	}
	// The address is another pod's now.
	node = namedNode("dns-2")
	if _, pod := name(node, "UDP"); pod != "dns-1" {
		t.Errorf("the directory was made anew at once: %q", pod)
	}
	now = now.Add(time.Minute)
	if _, pod := name(node, "UDP"); pod != "dns-2" {
		t.Errorf("the directory is old: %q", pod)
	}
}

func TestEnvoyBackends(t *testing.T) {
	tcp, port := corev1.ProtocolTCP, int32(8080)
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "web", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}
	node := model.Build(model.Inputs{
		NodeName: "node-a",
		Services: []*corev1.Service{{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Port: 80}}}}},
		EndpointSlices: []*discoveryv1.EndpointSlice{{
			ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.2.7"}}}, Ports: []discoveryv1.EndpointPort{{Port: &port, Protocol: &tcp}},
		}},
	}, model.DefaultOptions())
	var inUse []netip.AddrPort
	state := &State{Node: node, InUse: func() []netip.AddrPort { return inUse }}
	now, b, at := time.Unix(1_800_000_000, 0), envoyBackends{}, netip.MustParseAddrPort("10.244.2.7:8080")
	if b.has(at, state, now) {
		t.Error("a backend of a Service that Envoy has not asked for")
	}
	inUse = []netip.AddrPort{netip.MustParseAddrPort("10.96.0.1:80")}
	if now = now.Add(backendsPause); !b.has(at, state, now) {
		t.Error("Envoy may call it, and it is not known")
	}
	if b.has(netip.MustParseAddrPort("10.244.2.7:8081"), state, now) {
		t.Error("another port of the pod")
	}
}
