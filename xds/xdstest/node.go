// SPDX-License-Identifier: Apache-2.0

// Package xdstest makes what the tests of xds and xds/server translate: nodes
// with Services, and pods in which Envoy listens.
package xdstest

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Service is a Service in namespace shop with ready pods behind it, whose
// port is named "main" or, if Unnamed is set, not at all.
type Service struct {
	Name, ClusterIP string
	Port            int32
	Pods            []string
	Labels          map[string]string
	Unnamed         bool
}

// Node builds a node that has these Services.
func Node(services ...Service) *model.Node {
	in := model.Inputs{NodeName: "node-a"}
	in.Namespaces = []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}
	for _, s := range services {
		name, target, tcp, yes := "main", int32(8080), corev1.ProtocolTCP, true
		if s.Unnamed {
			name = ""
		}
		family := corev1.IPv4Protocol
		if strings.Contains(s.ClusterIP, ":") {
			family = corev1.IPv6Protocol
		}
		in.Services = append(in.Services, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: s.Name, Labels: s.Labels},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeClusterIP, ClusterIP: s.ClusterIP, ClusterIPs: []string{s.ClusterIP},
				IPFamilies: []corev1.IPFamily{family}, Ports: []corev1.ServicePort{{Name: name, Protocol: tcp, Port: s.Port}},
			},
		})
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: s.Name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}},
			AddressType: discoveryv1.AddressType(family),
			Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &target, Protocol: &tcp}},
		}
		for i, ip := range s.Pods {
			zone, node := string(rune('a'+i%2)), fmt.Sprintf("node-%d", i)
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{ip}, Zone: &zone, NodeName: &node,
				Conditions: discoveryv1.EndpointConditions{Ready: &yes},
				TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("%s-%d", s.Name, i)},
			})
		}
		in.EndpointSlices = append(in.EndpointSlices, slice)
	}
	return model.Build(in, model.DefaultOptions())
}

// Web is the Service at 10.96.0.10:80.
func Web(pods ...string) Service {
	return Service{Name: "web", ClusterIP: "10.96.0.10", Port: 80, Pods: pods}
}

// Target is a pod of this name in namespace shop, with both address families.
func Target(name string) model.PodTarget {
	return model.PodTarget{Namespace: "shop", Pod: name, UID: "uid-" + name, Netns: "/run/netns/cni-" + name, V4: true, V6: true}
}
