// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// Service is a Kubernetes Service and its endpoints in short: what Set on
// Objects takes is made from it.
type Service struct {
	Namespace, Name string
	// IPs are the cluster IPs, at most one of each family.
	IPs    []netip.Addr
	Labels map[string]string
	// Ports are its ports; see EchoPorts.
	Ports []corev1.ServicePort
	// Pods are its backends, all ready.
	Pods []*Pod
}

// EchoPorts are the ports of a Service of echo servers: http on 80 and grpc on 9090,
// whose protocol is declared, tcp on 7000, and on 8080 HTTP whose protocol isn't.
func EchoPorts() []corev1.ServicePort {
	ports := []corev1.ServicePort{
		Port("http", 80, echo.HTTPPort), Port("grpc", echo.GRPCPort, echo.GRPCPort),
		Port("tcp", echo.TCPPort, echo.TCPPort), Port("plain", 8080, echo.HTTPPort),
	}
	ports[0].AppProtocol, ports[1].AppProtocol = &ports[0].Name, &ports[1].Name
	return ports
}

// Port is a Service's port of this name and number that leads to port target of its pods.
func Port(name string, number uint16, target int) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: int32(number), TargetPort: intstr.FromInt(target), Protocol: corev1.ProtocolTCP}
}

// SetService adds a Service with its EndpointSlices, or replaces it.
func (o *Objects) SetService(s Service) {
	o.DeleteService(s.Namespace, s.Name)
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, UID: uid("service", s.Namespace+"/"+s.Name), Labels: s.Labels},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: s.Ports},
	}
	for _, ip := range s.IPs {
		service.Spec.ClusterIPs = append(service.Spec.ClusterIPs, ip.String())
		service.Spec.IPFamilies = append(service.Spec.IPFamilies, corev1.IPFamily(family(ip)))
		o.Set(s.slice(ip))
	}
	service.Spec.ClusterIP = service.Spec.ClusterIPs[0]
	o.Set(service)
}

// slice makes the EndpointSlice of the family of a cluster IP.
func (s Service) slice(clusterIP netip.Addr) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace,
			Name:      s.Name + "-" + strings.ToLower(family(clusterIP)),
			Labels:    map[string]string{discoveryv1.LabelServiceName: s.Name},
		},
		AddressType: discoveryv1.AddressType(family(clusterIP)),
	}
	for _, port := range s.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{
			Name: &port.Name, Port: &port.TargetPort.IntVal, Protocol: &port.Protocol, AppProtocol: port.AppProtocol,
		})
	}
	ready := true
	for _, pod := range s.Pods {
		zone := "lab-" + pod.Node.Name
		for _, ip := range pod.IPs {
			if ip.Is4() != clusterIP.Is4() {
				continue
			}
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses:  []string{ip.String()},
				Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready},
				NodeName:   &pod.Node.Name,
				Zone:       &zone,
				TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: types.UID(pod.UID)},
			})
		}
	}
	return slice
}

// family is an address's family as Kubernetes writes it.
func family(ip netip.Addr) string {
	if ip.Is4() {
		return string(corev1.IPv4Protocol)
	}
	return string(corev1.IPv6Protocol)
}
