// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// tenantServices is how many Services the attackers' namespace has, at most.
const tenantServices = 20

// writeAtRandom has a tenant write objects into the attackers' namespace: what an API
// server takes, and some that it would not. Addresses of others' Services are not among
// them: with those, kube-proxy's rules would be as wrong.
func (n *node) writeAtRandom(r *rand.Rand) error {
	for i := range tenantServices {
		name := fmt.Sprintf("tenant-%d", i)
		n.Objects().DeleteService("evil", name)
		if r.IntN(3) == 0 {
			continue
		}
		service := randomService(r, name, i)
		n.Objects().Set(service)
		for j := range r.IntN(4) {
			n.Objects().Set(n.randomSlice(r, service, fmt.Sprintf("%s-%d", name, j)))
		}
	}
	for _, pod := range n.evil {
		labels := map[string]string{"app": pick(r, "a", "b", "")}
		if r.IntN(4) == 0 {
			labels["nodevoy.io/redirect"] = pick(r, "enabled", "disabled", "Enabled", "", "no")
		}
		n.Objects().SetPodLabels(pod, labels)
	}
	return n.PublishObjects()
}

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// text is what goes into a field that nobody validates.
func text(r *rand.Rand) string {
	return pick(r, "", "plain", "a\nb", `quotes " and '`, "%REQ(host)%", "%%", "\x00\x1b[2J", "ünïcödé 名", "../../etc",
		strings.Repeat("long", 500), "evil/other", "shop/victim", "{}", "# no: yaml", "null", "\xff\xfe")
}

func randomService(r *rand.Rand, name string, number int) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "evil", Name: name,
			Labels:      map[string]string{"nodevoy.io/redirect": pick(r, "enabled", "disabled", "maybe")},
			Annotations: map[string]string{"note": text(r)},
		},
		Spec: corev1.ServiceSpec{
			Type: pick(r, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName),
			ClusterIP: pick(r, fmt.Sprintf("10.96.1.%d", number+1), fmt.Sprintf("10.96.1.%d", number+1), corev1.ClusterIPNone,
				fmt.Sprintf("fd00:10:96::1:%x", number+1), "", "10.96.1.1"),
			SessionAffinity: pick(r, corev1.ServiceAffinityNone, corev1.ServiceAffinityClientIP),
			ExternalName:    pick(r, "", "example.org"),
		},
	}
	if r.IntN(4) > 0 {
		delete(s.Labels, "nodevoy.io/redirect")
	}
	s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	if r.IntN(4) == 0 {
		s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, fmt.Sprintf("fd00:10:96::2:%x", number+1))
	}
	if r.IntN(4) == 0 {
		s.Spec.ExternalIPs = []string{pick(r, "198.51.100.7", "127.0.0.1", "0.0.0.0", "169.254.64.15", "10.244.1.1", "255.255.255.255", "not an address", "::1", "ff02::1")}
	}
	if r.IntN(4) == 0 {
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: pick(r, "203.0.113.9", "", "::", "169.254.169.254"), Hostname: text(r)}}
	}
	policy := pick(r, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal, "Odd")
	s.Spec.InternalTrafficPolicy = &policy
	for i := range r.IntN(12) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{
			Name:        pick(r, "", "http", "grpc-web", "tcp-db", fmt.Sprintf("p%d", i), "h2c", text(r)),
			Port:        pick(r, int32(80), 443, 1, 65_535, 0, -1, 70_000, int32(1_000+i)),
			Protocol:    pick(r, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, ""),
			AppProtocol: appProtocol(r),
			TargetPort:  pick(r, intstr.FromInt(8080), intstr.FromString("web"), intstr.FromInt(0)),
		})
	}
	return s
}

func appProtocol(r *rand.Rand) *string {
	if r.IntN(2) == 0 {
		return nil
	}
	p := pick(r, "http", "kubernetes.io/h2c", "kubernetes.io/ws", "grpc", "tcp", "mysql", "HTTP", text(r))
	return &p
}

// randomSlice makes an EndpointSlice, mostly of the Service.
func (n *node) randomSlice(r *rand.Rand, s *corev1.Service, name string) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "evil", Name: name, Labels: map[string]string{
			discoveryv1.LabelServiceName: pick(r, s.Name, s.Name, s.Name, "web", "own", ""),
		}},
		AddressType: pick(r, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN),
	}
	if slice.Labels[discoveryv1.LabelServiceName] == "own" {
		// The attackers' own Service is to be attacked.
		delete(slice.Labels, discoveryv1.LabelServiceName)
	}
	for _, p := range s.Spec.Ports {
		number, protocol := pick(r, p.TargetPort.IntVal, 0, 65_535, -1, 15_001, 80), p.Protocol
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &number, Protocol: &protocol, AppProtocol: appProtocol(r)})
	}
	for range pick(r, 0, 1, 3, 3, 1_000) {
		slice.Endpoints = append(slice.Endpoints, n.randomEndpoint(r))
	}
	return slice
}

func (n *node) randomEndpoint(r *rand.Rand) discoveryv1.Endpoint {
	yes, no := true, false
	flag := func() *bool { return pick(r, nil, &yes, &yes, &no) }
	nodeName, zone := pick(r, n.node.Name, "node-b", text(r)), text(r)
	e := discoveryv1.Endpoint{
		Addresses: []string{pick(r, n.target.IPs[0].String(), n.victim.IPs[0].String(), n.node.IPs[0].String(),
			"127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.169.254", "169.254.64.15", "255.255.255.255", "10.96.0.10",
			"::1", "fe80::1", "ff02::1", "::ffff:10.0.0.1", "fd00:10:244::9", "10.0.0.1%eth0", "example.org", "", text(r),
			fmt.Sprintf("10.%d.%d.%d", r.IntN(256), r.IntN(256), r.IntN(256)))},
		Conditions: discoveryv1.EndpointConditions{Ready: flag(), Serving: flag(), Terminating: flag()},
		NodeName:   &nodeName,
		Zone:       &zone,
	}
	if r.IntN(2) == 0 {
		e.TargetRef = &corev1.ObjectReference{
			Kind: pick(r, "Pod", "Node", text(r)), Namespace: pick(r, "evil", "shop", text(r)), Name: pick(r, "target", "backend", text(r)),
		}
	}
	if r.IntN(4) == 0 {
		e.Hints = &discoveryv1.EndpointHints{
			ForZones: []discoveryv1.ForZone{{Name: text(r)}}, ForNodes: []discoveryv1.ForNode{{Name: pick(r, n.node.Name, text(r))}},
		}
	}
	return e
}
