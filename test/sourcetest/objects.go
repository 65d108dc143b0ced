// SPDX-License-Identifier: Apache-2.0

package sourcetest

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// nodeName is the node all parts of the contract look from.
const nodeName = "contract-node"

// inputsOf are the inputs a perfect source would give.
func inputsOf(objects []Object) model.Inputs {
	inputs := model.Inputs{NodeName: nodeName}
	for _, object := range objects {
		switch o := object.(type) {
		case *corev1.Namespace:
			inputs.Namespaces = append(inputs.Namespaces, o)
		case *corev1.Node:
			inputs.Node = o
		case *corev1.Pod:
			inputs.Pods = append(inputs.Pods, o)
		case *corev1.Service:
			inputs.Services = append(inputs.Services, o)
		case *discoveryv1.EndpointSlice:
			inputs.EndpointSlices = append(inputs.EndpointSlices, o)
		}
	}
	return inputs
}

func node() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName, Labels: map[string]string{
			corev1.LabelTopologyRegion: "region-1", corev1.LabelTopologyZone: "zone-a", "other": "label",
		}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.200.0.1"}}},
	}
}

func namespace(name, redirect string) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if redirect != "" {
		ns.Labels = map[string]string{model.RedirectLabel: redirect}
	}
	return ns
}

// pod is a running pod on a node, with these addresses.
func pod(namespace, name, node string, ips ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Labels: map[string]string{"app": name},
			Annotations: map[string]string{"note": "not for the agent"},
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "of-" + name, UID: "4a1c3f9e-6f0f-4d1b-9a53-5d6f6f7f4a10", Controller: new(true)},
			},
		},
		Spec: corev1.PodSpec{
			NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "example.org/main:1"}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	if len(ips) > 0 {
		p.Status.PodIP = ips[0]
	}
	return p
}

// service is a Service of one port, http on 80.
func service(namespace, name, clusterIP string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: clusterIP, ClusterIPs: []string{clusterIP},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
}

// endpoints is the Service's slice: ready pods at these addresses, port 8080.
func endpoints(of *corev1.Service, ips ...string) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: of.Namespace, Name: of.Name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: of.Name},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, port := range of.Spec.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{
			Name: new(port.Name), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP),
		})
	}
	for i, ip := range ips {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{ip},
			Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
			NodeName:   new(nodeName),
			Zone:       new("zone-a"),
			TargetRef: &corev1.ObjectReference{
				Kind: "Pod", Namespace: of.Namespace, Name: of.Name + "-" + string(rune('a'+i)),
			},
		})
	}
	return slice
}
