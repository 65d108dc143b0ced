// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// TestCandidates is why each endpoint of a port is used, or not.
func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		what      string
		service   *corev1.Service
		endpoints []discoveryv1.Endpoint
		want      []string
	}{
		{"ready or not", service(), []discoveryv1.Endpoint{endpoint("10.1.0.1"), endpoint("10.1.0.2", unready), endpoint("10.1.0.3", leaving)}, []string{
			"10.1.0.1:8080 true: ready", "10.1.0.2:8080 false: not ready", "10.1.0.3:8080 false: terminating",
		}},
		{"none ready", service(), []discoveryv1.Endpoint{endpoint("10.1.0.2", unready), endpoint("10.1.0.3", leaving)}, []string{
			"10.1.0.2:8080 false: not ready", "10.1.0.3:8080 true: terminating but serving, and no other is ready",
		}},
		{"Local", service(local), []discoveryv1.Endpoint{endpoint("10.1.0.1", on(nodeName)), endpoint("10.1.0.2", on("node-2"))}, []string{
			"10.1.0.1:8080 true: ready, and on this node", "10.1.0.2:8080 false: not on this node, and internalTrafficPolicy is Local",
		}},
		{"hints for nodes", service(), []discoveryv1.Endpoint{endpoint("10.1.0.1", forNodes(nodeName)), endpoint("10.1.0.2", forNodes("node-2"))}, []string{
			"10.1.0.1:8080 true: ready, and its hints are for this node", "10.1.0.2:8080 false: its hints are for other nodes",
		}},
		{"hints for zones", service(), []discoveryv1.Endpoint{endpoint("10.1.0.1", forZones("zone-a")), endpoint("10.1.0.2", forZones("zone-b"))}, []string{
			"10.1.0.1:8080 true: ready, and its hints are for zone zone-a", "10.1.0.2:8080 false: its hints are for other zones",
		}},
	} {
		node := build(model.Inputs{
			Node: zoned(), Services: []*corev1.Service{c.service}, EndpointSlices: []*discoveryv1.EndpointSlice{slice("web-1", c.endpoints...)},
		})
		f, ok := node.Frontend(netip.MustParseAddrPort("10.96.0.1:80"))
		if !ok {
			t.Fatalf("%s: no frontend", c.what)
		}
		var got []string
		for _, candidate := range node.Candidates(f) {
			got = append(got, fmt.Sprintf("%s %v: %s", candidate.Address, candidate.Used, candidate.Why))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}

// TestSimilar is which Services somebody may have meant.
func TestSimilar(t *testing.T) {
	var all []*corev1.Service
	for _, name := range []string{"shop/api", "shop/apis", "shop/web", "shop/checkout", "pay/payments", "pay/api", "pay/web"} {
		all = append(all, service(func(s *corev1.Service) { s.Namespace, s.Name = cut(name) }))
	}
	node := build(model.Inputs{Services: all})
	for name, want := range map[string][]string{
		"shop/ap":      {"shop/api"},
		"shop/apii":    {"shop/api", "shop/apis"},
		"shop/chekout": {"shop/checkout"}, "shop/payments": {"pay/payments"}, "shop/nothing": nil,
	} {
		if diff := cmp.Diff(want, node.Similar(cut(name)), noEmpty...); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// cut is the namespace and the name of namespace/name.
func cut(text string) (namespace, name string) {
	namespace, name, _ = strings.Cut(text, "/")
	return namespace, name
}

// TestServices finds Services by name and by address, and the owners of addresses.
func TestServices(t *testing.T) {
	headless := service(func(s *corev1.Service) { s.Name, s.Spec.ClusterIP = "db", corev1.ClusterIPNone })
	external := service(func(s *corev1.Service) {
		s.Name, s.Spec.ClusterIP, s.Spec.Type = "far", "", corev1.ServiceTypeExternalName
	})
	udp := service(func(s *corev1.Service) {
		s.Name, s.Spec.ClusterIP = "dns", "10.96.0.53"
		s.Spec.Ports = []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}
	})
	far := slice("web-1", endpoint("10.2.0.1", on("node-2"), func(e *discoveryv1.Endpoint) {
		e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: "web-x"}
	}))
	node := build(model.Inputs{
		Node:     zoned(),
		Services: []*corev1.Service{service(), headless, external, udp}, Pods: []*corev1.Pod{pod("near", "10.1.0.9")},
		EndpointSlices: []*discoveryv1.EndpointSlice{far},
	})
	for name, want := range map[string]string{
		"shop/web": "ports [{http 80 TCP}], headless false, external false, true", "shop/db": "ports [{http 80 TCP}], headless true, external false, true",
		"shop/far": "ports [{http 80 TCP}], headless false, external true, true", "shop/dns": "ports [{dns 53 UDP}], headless false, external false, true",
		"shop/no": "ports [], headless false, external false, false",
	} {
		s, ok := node.Service(cut(name))
		if got := fmt.Sprintf("ports %v, headless %v, external %v, %v", s.Ports, s.Headless, s.External, ok); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for ip, want := range map[string]string{"10.96.0.1": "web", "10.96.0.53": "dns", "10.96.0.2": ""} {
		if s, _ := node.ServiceAt(netip.MustParseAddr(ip)); s.Name != want {
			t.Errorf("the Service at %s is %q, want %q", ip, s.Name, want)
		}
	}
	for ip, want := range map[string]model.Owner{
		"10.1.0.9": {Namespace: "shop", Pod: "near", Node: nodeName}, "10.2.0.1": {Namespace: "shop", Pod: "web-x", Node: "node-2"}, "10.3.0.1": {},
	} {
		if got := node.OwnerOf(netip.MustParseAddr(ip)); got != want {
			t.Errorf("the owner of %s is %v, want %v", ip, got, want)
		}
	}
}
