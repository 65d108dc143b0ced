// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// TestSlicesAreJoined is a Service whose endpoints are in several slices.
func TestSlicesAreJoined(t *testing.T) {
	other := slice("other", endpoint("10.0.0.9"))
	other.Labels[discoveryv1.LabelServiceName] = "other"
	foreign := slice("web-1", endpoint("10.0.0.9"))
	foreign.Namespace = "elsewhere"
	for _, test := range []struct {
		name   string
		slices []*discoveryv1.EndpointSlice
		want   []string
	}{
		{
			name:   "two slices",
			slices: []*discoveryv1.EndpointSlice{slice("b", endpoint("10.0.0.1")), slice("a", endpoint("10.0.0.2"))},
			want:   []string{"10.0.0.1:8080", "10.0.0.2:8080"},
		},
		{
			name: "endpoint on its way between slices",
			slices: []*discoveryv1.EndpointSlice{
				slice("a", endpoint("10.0.0.1"), endpoint("10.0.0.2")), slice("b", endpoint("10.0.0.2")),
			},
			want: []string{"10.0.0.1:8080", "10.0.0.2:8080"},
		},
		{
			name:   "pod IP reused: the pod that stays is meant",
			slices: []*discoveryv1.EndpointSlice{slice("a", endpoint("10.0.0.1", leaving)), slice("b", endpoint("10.0.0.1"))},
			want:   []string{"10.0.0.1:8080"},
		},
		{
			name:   "pod IP reused, and the new pod is not ready yet",
			slices: []*discoveryv1.EndpointSlice{slice("a", endpoint("10.0.0.1", leaving)), slice("b", endpoint("10.0.0.1", unready))},
		},
		{
			name:   "slices of other Services",
			slices: []*discoveryv1.EndpointSlice{slice("a", endpoint("10.0.0.1")), other, foreign},
			want:   []string{"10.0.0.1:8080"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			node := build(model.Inputs{Services: []*corev1.Service{service()}, EndpointSlices: test.slices})
			if diff := cmp.Diff(test.want, addresses(t, node, "10.96.0.1:80"), noEmpty...); diff != "" {
				t.Errorf("backends (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPortsAreMatchedByName is a Service of two ports.
func TestPortsAreMatchedByName(t *testing.T) {
	svc := service(func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "admin", Port: 81}, {Name: "gone", Port: 82}}
	})
	both := slice("a", endpoint("10.0.0.1"))
	both.Ports = []discoveryv1.EndpointPort{
		{Name: new("admin"), Port: new(int32(9000))},
		{Name: new("http"), Port: new(int32(53)), Protocol: new(corev1.ProtocolUDP)},
		{Name: new("http"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)},
		{Port: new(int32(7000))},
	}
	// Pods of another version, which listen elsewhere.
	newer := slice("b", endpoint("10.0.0.2"))
	newer.Ports = []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8081))}}
	node := build(model.Inputs{
		Services: []*corev1.Service{svc}, EndpointSlices: []*discoveryv1.EndpointSlice{both, newer},
	})
	for frontend, want := range map[string][]string{
		"10.96.0.1:80": {"10.0.0.1:8080", "10.0.0.2:8081"},
		"10.96.0.1:81": {"10.0.0.1:9000"},
		"10.96.0.1:82": nil,
	} {
		if diff := cmp.Diff(want, addresses(t, node, frontend), noEmpty...); diff != "" {
			t.Errorf("backends of %s (-want +got):\n%s", frontend, diff)
		}
	}
}

func TestUnnamedPort(t *testing.T) {
	for name, portName := range map[string]*string{"not set": nil, "empty": new("")} {
		t.Run(name, func(t *testing.T) {
			s := slice("a", endpoint("10.0.0.1"))
			s.Ports[0].Name = portName
			node := build(model.Inputs{
				Services:       []*corev1.Service{service(func(s *corev1.Service) { s.Spec.Ports[0].Name = "" })},
				EndpointSlices: []*discoveryv1.EndpointSlice{s},
			})
			if diff := cmp.Diff([]string{"10.0.0.1:8080"}, addresses(t, node, "10.96.0.1:80")); diff != "" {
				t.Errorf("backends (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBadSlices is what is wrong with a slice, and that the rest of it is used.
func TestBadSlices(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*discoveryv1.EndpointSlice)
		none    bool // of its endpoints is used
		problem string
	}{
		{
			name:    "endpoint without address",
			change:  func(s *discoveryv1.EndpointSlice) { s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{}) },
			problem: "endpoints[1].addresses: is empty; the endpoint is ignored",
		},
		{
			name: "many endpoints without address",
			change: func(s *discoveryv1.EndpointSlice) {
				s.Endpoints = append(s.Endpoints, make([]discoveryv1.Endpoint, 100)...)
			},
			problem: "endpoints[1].addresses: is empty; the endpoint is ignored; 99 more like it",
		},
		{
			name: "no IP address",
			change: func(s *discoveryv1.EndpointSlice) {
				s.Endpoints = append(s.Endpoints, endpoint("example.org"), endpoint("10.0.0.1.2"))
			},
			problem: "endpoints[1].addresses[0]: example.org is not an IP address; the endpoint is ignored; 1 more like it",
		},
		{
			name:    "loopback",
			change:  func(s *discoveryv1.EndpointSlice) { s.Endpoints = append(s.Endpoints, endpoint("127.0.0.1")) },
			problem: "endpoints[1].addresses[0]: 127.0.0.1 is a loopback address; the endpoint is ignored",
		},
		{
			name:    "other family",
			change:  func(s *discoveryv1.EndpointSlice) { s.Endpoints = append(s.Endpoints, endpoint("fd00::1")) },
			problem: "endpoints[1].addresses[0]: fd00::1 is not IPv4; the endpoint is ignored",
		},
		{
			name: "host names", none: true,
			change: func(s *discoveryv1.EndpointSlice) {
				s.AddressType = discoveryv1.AddressTypeFQDN
				s.Endpoints = []discoveryv1.Endpoint{endpoint("example.org")}
			},
			problem: "addressType: FQDN has no IP addresses; ignored",
		},
		{
			name: "port not set",
			change: func(s *discoveryv1.EndpointSlice) {
				s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new("http")})
			},
			problem: "ports[1].port: is not set; ignored",
		},
		{
			name: "port 0", none: true,
			change:  func(s *discoveryv1.EndpointSlice) { s.Ports[0].Port = new(int32(0)) },
			problem: "ports[0].port: 0 is not a port; ignored",
		},
		{
			name: "port too large", none: true,
			change:  func(s *discoveryv1.EndpointSlice) { s.Ports[0].Port = new(int32(70000)) },
			problem: "ports[0].port: 70000 is not a port; ignored",
		},
		{
			name: "no Service", none: true,
			change:  func(s *discoveryv1.EndpointSlice) { s.Labels = nil },
			problem: "metadata.labels[kubernetes.io/service-name]: is missing; the slice belongs to no Service",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := slice("web-1", endpoint("10.0.0.1"))
			test.change(s)
			node := build(model.Inputs{
				// Two families and two ports: still told once.
				Services: []*corev1.Service{service(func(s *corev1.Service) {
					s.Spec.ClusterIPs = []string{"10.96.0.1", "fd00:96::1"}
					s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "other", Port: 81})
				})},
				EndpointSlices: []*discoveryv1.EndpointSlice{s},
			})
			want := []string{"10.0.0.1:8080"}
			if test.none {
				want = nil
			}
			if diff := cmp.Diff(want, addresses(t, node, "10.96.0.1:80"), noEmpty...); diff != "" {
				t.Errorf("backends (-want +got):\n%s", diff)
			}
			problem := []string{"EndpointSlice shop/web-1 " + test.problem}
			if diff := cmp.Diff(problem, texts(node.Problems), noEmpty...); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAddressTypeNeedNotBeWritten(t *testing.T) {
	s := slice("web-1", endpoint("10.0.0.1"), endpoint("fd00::1"))
	s.AddressType = ""
	node := build(model.Inputs{Services: []*corev1.Service{service()}, EndpointSlices: []*discoveryv1.EndpointSlice{s}})
	if diff := cmp.Diff([]string{"10.0.0.1:8080"}, addresses(t, node, "10.96.0.1:80")); diff != "" {
		t.Errorf("backends (-want +got):\n%s", diff)
	}
}

func TestFiveThousandEndpoints(t *testing.T) {
	const count = 5000
	var slices []*discoveryv1.EndpointSlice
	for i := range count / 100 {
		s := slice(fmt.Sprintf("web-%d", i))
		for e := range 100 {
			s.Endpoints = append(s.Endpoints, endpoint(fmt.Sprintf("10.0.%d.%d", i, e)))
		}
		slices = append(slices, s)
	}
	node := build(model.Inputs{Services: []*corev1.Service{service()}, EndpointSlices: slices})
	backends := node.Frontends[0].Backends
	if len(backends) != count {
		t.Fatalf("got %d backends, want %d", len(backends), count)
	}
	for i := 1; i < count; i++ {
		if !backends[i-1].Address.Addr().Less(backends[i].Address.Addr()) {
			t.Fatalf("backend %d is %s, after %s", i, backends[i].Address, backends[i-1].Address)
		}
	}
}
