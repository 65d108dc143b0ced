// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// service is a Service of one port in namespace shop, and its ready pods.
type service struct {
	name     string
	frontend string // IP:port
	backends []string
}

// http1 begins the names of clusters for HTTP/1.1.
const http1 = "HTTP/1.1 "

// nodeOf builds a node that has these Services.
func nodeOf(t *testing.T, services ...service) *model.Node {
	t.Helper()
	in := model.Inputs{NodeName: "node-a", Namespaces: []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}}
	for _, s := range services {
		svc, slice := s.objects(t)
		in.Services = append(in.Services, svc)
		in.EndpointSlices = append(in.EndpointSlices, slice)
	}
	return model.Build(in, model.DefaultOptions())
}

func (s service) objects(t *testing.T) (*corev1.Service, *discoveryv1.EndpointSlice) {
	t.Helper()
	front, err := netip.ParseAddrPort(s.frontend)
	if err != nil {
		t.Fatal(err)
	}
	family, addressType := corev1.IPv4Protocol, discoveryv1.AddressTypeIPv4
	if front.Addr().Is6() {
		family, addressType = corev1.IPv6Protocol, discoveryv1.AddressTypeIPv6
	}
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: s.name},
		Spec: corev1.ServiceSpec{
			Type:      corev1.ServiceTypeClusterIP,
			ClusterIP: front.Addr().String(), ClusterIPs: []string{front.Addr().String()},
			IPFamilies: []corev1.IPFamily{family},
			Ports:      []corev1.ServicePort{{Name: "main", Protocol: corev1.ProtocolTCP, Port: int32(front.Port())}},
		},
	}
	ready, name, protocol := true, "main", corev1.ProtocolTCP
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: s.name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: s.name}},
		AddressType: addressType,
	}
	var port int32
	for i, b := range s.backends {
		addr, err := netip.ParseAddrPort(b)
		if err != nil {
			t.Fatal(err)
		}
		if port = int32(addr.Port()); i > 0 && *slice.Ports[0].Port != port {
			t.Fatalf("backends of %s have different ports", s.name)
		}
		slice.Ports = []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}}
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{addr.Addr().String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("%s-%d", s.name, i)},
		})
	}
	return svc, slice
}
