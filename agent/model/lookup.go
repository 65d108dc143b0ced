// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Service is a Service as somebody who calls it by name finds it, with frontends or
// without.
type Service struct {
	Namespace, Name string
	// External is set for type ExternalName, and Headless for one without an address of
	// its own: DNS leads to something else, or to the pods.
	External, Headless bool
	// Addresses are its ClusterIPs.
	Addresses []netip.Addr
	Ports     []NamedPort
}

// NamedPort is a port of a Service.
type NamedPort struct {
	Name string
	Port uint16
	// Protocol is TCP, UDP or SCTP.
	Protocol string
}

// Service finds a Service by its name. Unlike Frontend it reads the objects: it is for
// questions of people, at any size of the cluster.
func (n *Node) Service(namespace, name string) (Service, bool) {
	svc := n.service(namespace, name)
	if svc == nil {
		return Service{}, false
	}
	s := Service{Namespace: namespace, Name: name, External: svc.Spec.Type == corev1.ServiceTypeExternalName}
	for _, text := range clusterIPs(svc) {
		if text == corev1.ClusterIPNone {
			s.Headless = true
		}
		if ip, err := netip.ParseAddr(text); err == nil {
			s.Addresses = append(s.Addresses, ip.Unmap())
		}
	}
	for i := range svc.Spec.Ports {
		port := &svc.Spec.Ports[i]
		s.Ports = append(s.Ports, NamedPort{
			Name: port.Name, Port: uint16(port.Port), Protocol: string(cmp.Or(port.Protocol, corev1.ProtocolTCP)),
		})
	}
	return s, true
}

func (n *Node) service(namespace, name string) *corev1.Service {
	for _, svc := range n.objects.Services {
		if svc != nil && svc.Name == name && svc.Namespace == namespace {
			return svc
		}
	}
	return nil
}

// ServiceAt finds the Service that has the address as ClusterIP, external IP or
// load-balancer IP, at whatever port.
func (n *Node) ServiceAt(ip netip.Addr) (Service, bool) {
	i, _ := slices.BinarySearchFunc(n.Frontends, netip.AddrPortFrom(ip, 0), func(f *Frontend, at netip.AddrPort) int { return f.Address.Compare(at) })
	if i < len(n.Frontends) && n.Frontends[i].Address.Addr() == ip {
		return n.Service(n.Frontends[i].Port.Namespace, n.Frontends[i].Port.Service)
	}
	text := ip.String()
	for _, svc := range n.objects.Services {
		if svc != nil && slices.Contains(clusterIPs(svc), text) {
			return n.Service(svc.Namespace, svc.Name)
		}
	}
	return Service{}, false
}

// FrontendsOf are the frontends of one port of a Service, sorted by address.
func (n *Node) FrontendsOf(namespace, name string, port uint16) []*Frontend {
	var found []*Frontend
	for _, f := range n.Frontends {
		if f.Port.Port == port && f.Port.Service == name && f.Port.Namespace == namespace {
			found = append(found, f)
		}
	}
	return found
}

// HasNamespace says whether there is a namespace of this name.
func (n *Node) HasNamespace(name string) bool {
	return slices.ContainsFunc(n.objects.Namespaces, func(ns *corev1.Namespace) bool { return ns != nil && ns.Name == name })
}

// Similar names the Services whose names somebody may have meant, the likeliest
// first: those of the same name in other namespaces, and those of the namespace with
// few letters of difference.
func (n *Node) Similar(namespace, name string) []string {
	const most = 3
	type guess struct {
		name     string
		distance int
	}
	var guesses []guess
	for _, svc := range n.objects.Services {
		switch {
		case svc == nil:
		case svc.Namespace == namespace:
			limit := max(1, min(len(name), len(svc.Name))/3)
			if d := distance(name, svc.Name, limit); d <= limit {
				guesses = append(guesses, guess{namespace + "/" + svc.Name, d})
			}
		case svc.Name == name:
			guesses = append(guesses, guess{svc.Namespace + "/" + name, 1})
		}
	}
	slices.SortFunc(guesses, func(a, b guess) int { return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name)) })
	var names []string
	for _, g := range guesses[:min(most, len(guesses))] {
		names = append(names, g.name)
	}
	return names
}

// distance is how many letters have to be added, removed or changed to make one text
// the other; more than limit if it is more.
func distance(a, b string, limit int) int {
	if max(len(a), len(b))-min(len(a), len(b)) > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := before
			if a[i] != b[j] {
				changed++
			}
			before = row[j+1]
			row[j+1] = min(changed, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Owner is who has an address that is no Service's.
type Owner struct {
	// Namespace and Pod name a pod, Node the node that it is on or, without a pod, whose
	// address it is. All are empty if nobody known has the address.
	Namespace, Pod, Node string
}

// OwnerOf finds who has an address: a pod of this node, this node itself, or a pod that
// an EndpointSlice names.
func (n *Node) OwnerOf(ip netip.Addr) Owner {
	for i := range n.Pods {
		if slices.Contains(n.Pods[i].IPs, ip) {
			return Owner{Namespace: n.Pods[i].Namespace, Pod: n.Pods[i].Name, Node: n.Name}
		}
	}
	if slices.Contains(nodeAddresses(n.objects.Node), ip) {
		return Owner{Node: n.Name}
	}
	text := ip.String()
	for _, slice := range n.objects.EndpointSlices {
		if slice == nil {
			continue
		}
		for i := range slice.Endpoints {
			ep := &slice.Endpoints[i]
			if len(ep.Addresses) == 0 || ep.Addresses[0] != text || ep.TargetRef == nil || !namesPod(ep.TargetRef, slice.Namespace) {
				continue
			}
			c := candidate{endpoint: &endpoint{ip: ip, slice: slice, from: ep}}
			b := c.backend()
			return Owner{Namespace: b.Namespace, Pod: b.Pod, Node: b.Node}
		}
	}
	return Owner{}
}

// slicesOf are the EndpointSlices of a Service, sorted by name.
func (n *Node) slicesOf(namespace, name string) []*discoveryv1.EndpointSlice {
	var own []*discoveryv1.EndpointSlice
	for _, s := range n.objects.EndpointSlices {
		if s != nil && s.Namespace == namespace && s.Labels[discoveryv1.LabelServiceName] == name {
			own = append(own, s)
		}
	}
	slices.SortFunc(own, func(x, y *discoveryv1.EndpointSlice) int { return strings.Compare(x.Name, y.Name) })
	return own
}

// NodeOf finds the node of a pod that an EndpointSlice names; empty if none does.
func (n *Node) NodeOf(namespace, pod string) string {
	for _, slice := range n.objects.EndpointSlices {
		if slice == nil || slice.Namespace != namespace {
			continue
		}
		for i := range slice.Endpoints {
			ep := &slice.Endpoints[i]
			if ep.TargetRef != nil && ep.TargetRef.Name == pod && ep.NodeName != nil && namesPod(ep.TargetRef, namespace) && validName(*ep.NodeName) {
				return *ep.NodeName
			}
		}
	}
	return ""
}
