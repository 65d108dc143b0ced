// SPDX-License-Identifier: Apache-2.0

package agent

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// inputs of one enrolled pod and one Service with a backend.
func oneService() model.Inputs {
	ready, port, name := true, int32(8080), "http"
	return model.Inputs{
		NodeName:   "node-a",
		Namespaces: []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "demo", Labels: map[string]string{"nodevoy.io/redirect": "enabled"}}}},
		Pods: []*corev1.Pod{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "client"},
			Spec:       corev1.PodSpec{NodeName: "node-a"},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.244.1.5", PodIPs: []corev1.PodIP{{IP: "10.244.1.5"}}},
		}},
		Services: []*corev1.Service{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web"},
			Spec: corev1.ServiceSpec{
				ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"},
				Ports: []corev1.ServicePort{{Name: name, Port: 80, Protocol: corev1.ProtocolTCP}},
			},
		}},
		EndpointSlices: []*discoveryv1.EndpointSlice{{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "demo", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.2.7"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		}},
	}
}

// twoServices are oneService and a database.
func twoServices() model.Inputs {
	in := oneService()
	service, slice := in.Services[0].DeepCopy(), in.EndpointSlices[0].DeepCopy()
	service.Name, service.Spec.ClusterIP, service.Spec.ClusterIPs = "db", "10.96.0.11", []string{"10.96.0.11"}
	service.Spec.Ports[0].Port, service.Spec.Ports[0].Name = 5432, "tcp"
	name := "tcp"
	slice.Name, slice.Labels["kubernetes.io/service-name"] = "db-1", "db"
	slice.Ports[0].Name = &name
	in.Services, in.EndpointSlices = append(in.Services, service), append(in.EndpointSlices, slice)
	return in
}
