// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// zoned is this node, in zone-a.
func zoned() *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: nodeName, Labels: map[string]string{corev1.LabelTopologyZone: "zone-a"},
	}}
}

func local(s *corev1.Service) {
	s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
}

// TestBackends is which endpoints of a Service kube-proxy would use, and so we.
func TestBackends(t *testing.T) {
	const one, two, three = "10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"
	const v4 = "10.96.0.1:80"
	for _, test := range []struct {
		name      string
		service   []func(*corev1.Service)
		endpoints []discoveryv1.Endpoint
		frontend  string // default v4
		noNode    bool
		want      []string
	}{
		{name: "none"},
		{
			name:      "sorted, and conditions not set mean ready",
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.2"), endpoint("10.0.0.1")}, want: []string{one, two},
		},
		{
			name:      "ready only",
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1"), endpoint("10.0.0.2", unready), endpoint("10.0.0.3", leaving)},
			want:      []string{one},
		},
		{
			name:      "serving-terminating when none is ready",
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", unready), endpoint("10.0.0.2", leaving), endpoint("10.0.0.3", leaving)},
			want:      []string{two + " terminating", three + " terminating"},
		},
		{
			name: "terminating and no longer serving",
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", func(e *discoveryv1.Endpoint) {
				e.Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false), Terminating: new(true)}
			})},
		},
		{
			name: "ready while terminating: publishNotReadyAddresses",
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", func(e *discoveryv1.Endpoint) {
				e.Conditions = discoveryv1.EndpointConditions{Ready: new(true), Serving: new(false), Terminating: new(true)}
			})},
			want: []string{one},
		},
		{
			name: "local policy", service: with1(local),
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", on(nodeName)), endpoint("10.0.0.2", on("node-2")), endpoint("10.0.0.3")},
			want:      []string{one},
		},
		{
			name: "local policy, nothing local", service: with1(local),
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.2", on("node-2"))},
		},
		{
			name: "local policy, only a terminating one is local", service: with1(local),
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", on(nodeName), leaving), endpoint("10.0.0.2", on("node-2"))},
			want:      []string{one + " terminating"},
		},
		{
			name: "local policy knows no hints", service: with1(local),
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", on(nodeName), forZones("zone-b")), endpoint("10.0.0.2", on("node-2"), forZones("zone-a"))},
			want:      []string{one},
		},
		{
			name: "external IP: the local policies are not for pods",
			service: with1(local, func(s *corev1.Service) {
				s.Spec.ExternalIPs = []string{"192.0.2.1"}
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			}),
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", on(nodeName)), endpoint("10.0.0.2", on("node-2"))},
			frontend:  "192.0.2.1:80", want: []string{one, two},
		},
		{
			name: "zone hints",
			endpoints: []discoveryv1.Endpoint{
				endpoint("10.0.0.1", forZones("zone-a", "zone-c")), endpoint("10.0.0.2", forZones("zone-b")), endpoint("10.0.0.3", forZones("zone-a")),
			},
			want: []string{one, three},
		},
		{
			name:      "zone hints, one missing",
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", forZones("zone-a")), endpoint("10.0.0.2"), endpoint("10.0.0.3", forZones("zone-b"))},
			want:      []string{one, two, three},
		},
		{
			name:      "zone hints, an unready one missing",
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", forZones("zone-a")), endpoint("10.0.0.2", unready), endpoint("10.0.0.3", forZones("zone-b"))},
			want:      []string{one},
		},
		{
			name:      "zone hints, none for this zone",
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", forZones("zone-b")), endpoint("10.0.0.2", forZones("zone-c"))},
			want:      []string{one, two},
		},
		{
			name:      "zone hints, ours unready",
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", forZones("zone-a"), unready), endpoint("10.0.0.2", forZones("zone-b"))},
			want:      []string{two},
		},
		{
			name: "zone hints, our zone unknown", noNode: true,
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", forZones("zone-a")), endpoint("10.0.0.2", forZones(""))},
			want:      []string{one, two},
		},
		{
			name:      "zone hints do not choose among terminating ones",
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", forZones("zone-b"), leaving), endpoint("10.0.0.2", forZones("zone-a"), leaving)},
			want:      []string{one + " terminating", two + " terminating"},
		},
		{
			name: "node hints go before zone hints",
			endpoints: []discoveryv1.Endpoint{
				endpoint("10.0.0.1", forNodes(nodeName), forZones("zone-b")),
				endpoint("10.0.0.2", forNodes("node-2"), forZones("zone-a")),
			},
			want: []string{one},
		},
		{
			name: "node hints, none for this node: zone hints",
			endpoints: []discoveryv1.Endpoint{
				endpoint("10.0.0.1", forNodes("node-3"), forZones("zone-b")),
				endpoint("10.0.0.2", forNodes("node-2"), forZones("zone-a")),
			},
			want: []string{two},
		},
		{
			name: "node hints, one missing: zone hints",
			endpoints: []discoveryv1.Endpoint{
				endpoint("10.0.0.1", forNodes(nodeName), forZones("zone-b")),
				endpoint("10.0.0.2", forZones("zone-a")),
			},
			want: []string{two},
		},
		{
			name:      "node hints alone",
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", forNodes(nodeName)), endpoint("10.0.0.2", forNodes("node-2"))},
			want:      []string{one},
		},
		{
			name:      "empty hints",
			endpoints: []discoveryv1.Endpoint{endpoint("10.0.0.1", forZones("zone-a")), endpoint("10.0.0.2", forZones())},
			want:      []string{one, two},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := model.Inputs{
				Services:       []*corev1.Service{service(test.service...)},
				EndpointSlices: []*discoveryv1.EndpointSlice{slice("web-1", test.endpoints...)},
			}
			if !test.noNode {
				in.Node = zoned()
			}
			node := build(in)
			frontend := test.frontend
			if frontend == "" {
				frontend = v4
			}
			if diff := cmp.Diff(test.want, addresses(t, node, frontend), noEmpty...); diff != "" {
				t.Errorf("backends of %s (-want +got):\n%s", frontend, diff)
			}
			if diff := cmp.Diff([]string(nil), texts(node.Problems), noEmpty...); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFrontendWithoutBackendsIsNotRedirected(t *testing.T) {
	in := model.Inputs{Services: []*corev1.Service{service()}}
	if f := build(in).Frontends[0]; f.Redirected() {
		t.Errorf("%s is redirected without backends", f.Address)
	}
	in.EndpointSlices = []*discoveryv1.EndpointSlice{slice("web-1", endpoint("10.0.0.1"))}
	if f := build(in).Frontends[0]; !f.Redirected() {
		t.Errorf("%s is not redirected", f.Address)
	}
}

func TestBackendSaysWhatItIs(t *testing.T) {
	ref := func(kind, namespace, name string) func(*discoveryv1.Endpoint) {
		return func(e *discoveryv1.Endpoint) {
			e.TargetRef = &corev1.ObjectReference{Kind: kind, Namespace: namespace, Name: name}
		}
	}
	zone := func(e *discoveryv1.Endpoint) { e.Zone = new("zone-b") }
	node := build(model.Inputs{
		Services: []*corev1.Service{service()},
		EndpointSlices: []*discoveryv1.EndpointSlice{slice("web-1",
			endpoint("10.0.0.1", ref("Pod", "shop", "web-a"), on("node-2"), zone),
			endpoint("10.0.0.2", ref("Pod", "", "web-b")),
			endpoint("10.0.0.3", ref("Pod", "elsewhere", "web-c")),
			endpoint("10.0.0.4", ref("VirtualMachine", "shop", "vm")),
			endpoint("10.0.0.5"),
			endpoint("10.0.0.6", ref("Pod", "shop", "web-a\n[2026] \"GET / HTTP/1.1\" 200"), on("node\n2"), func(e *discoveryv1.Endpoint) { e.Zone = new("zone b") }),
			endpoint("10.0.0.7", ref("Pod", "shop\n", "web-a")),
			endpoint("10.0.0.8", ref("Pod", "shop", "%PROTOCOL%")),
		)},
	})
	at := netip.MustParseAddrPort
	want := []model.Backend{
		{Address: at("10.0.0.1:8080"), Namespace: "shop", Pod: "web-a", Node: "node-2", Zone: "zone-b"},
		{Address: at("10.0.0.2:8080"), Namespace: "shop", Pod: "web-b"},
		// A slice's author may name any pod, and any text.
		{Address: at("10.0.0.3:8080"), Namespace: "shop"},
		{Address: at("10.0.0.4:8080"), Namespace: "shop"},
		{Address: at("10.0.0.5:8080"), Namespace: "shop"},
		{Address: at("10.0.0.6:8080"), Namespace: "shop"},
		{Address: at("10.0.0.7:8080"), Namespace: "shop"},
		{Address: at("10.0.0.8:8080"), Namespace: "shop"},
	}
	if diff := cmp.Diff(want, node.Frontends[0].Backends, noEmpty...); diff != "" {
		t.Errorf("backends (-want +got):\n%s", diff)
	}
}

func TestDualStackBackends(t *testing.T) {
	v6 := slice("web-6", endpoint("fd00::a"), endpoint("fd00::b"))
	v6.AddressType = discoveryv1.AddressTypeIPv6
	node := build(model.Inputs{
		Services: []*corev1.Service{service(func(s *corev1.Service) {
			s.Spec.ClusterIPs, s.Spec.ExternalIPs = []string{"10.96.0.1", "fd00:96::1"}, []string{"192.0.2.1"}
		})},
		// Which hints count is decided for each family by itself.
		EndpointSlices: []*discoveryv1.EndpointSlice{slice("web-4", endpoint("10.0.0.1", leaving)), v6},
	})
	if diff := cmp.Diff([]string{"10.0.0.1:8080 terminating"}, addresses(t, node, "10.96.0.1:80")); diff != "" {
		t.Errorf("v4 (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"[fd00::a]:8080", "[fd00::b]:8080"}, addresses(t, node, "[fd00:96::1]:80")); diff != "" {
		t.Errorf("v6 (-want +got):\n%s", diff)
	}
	cluster, _ := node.Frontend(netip.MustParseAddrPort("10.96.0.1:80"))
	external, _ := node.Frontend(netip.MustParseAddrPort("192.0.2.1:80"))
	if &cluster.Backends[0] != &external.Backends[0] {
		t.Error("frontends of one port and family do not share their backends")
	}
}
