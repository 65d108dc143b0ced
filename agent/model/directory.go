// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Directory finds by address what a Node has no index of: endpoints of any Service, also
// of those that are bypassed or headless, and Service ports of UDP. It is immutable. With
// 100,000 endpoints it takes some MB, and some ten milliseconds to make.
type Directory struct {
	endpoints map[netip.Addr]endpointRef
	udp       map[netip.AddrPort]ServicePort
}

// endpointRef is an endpoint of a slice; slice is nil if the address is that of several
// pods, as a node's is.
type endpointRef struct {
	slice *discoveryv1.EndpointSlice
	index int
}

// Directory makes the one of the objects that the node was built from.
func (n *Node) Directory() *Directory {
	size := 0
	for _, slice := range n.objects.EndpointSlices {
		if slice != nil {
			size += len(slice.Endpoints)
		}
	}
	d := &Directory{endpoints: make(map[netip.Addr]endpointRef, size), udp: map[netip.AddrPort]ServicePort{}}
	for _, slice := range n.objects.EndpointSlices {
		if slice != nil && slice.AddressType != discoveryv1.AddressTypeFQDN {
			d.addSlice(slice)
		}
	}
	for _, service := range n.objects.Services {
		if service != nil {
			d.addService(service)
		}
	}
	return d
}

// addSlice adds the endpoints of a slice that are pods.
func (d *Directory) addSlice(slice *discoveryv1.EndpointSlice) {
	for i := range slice.Endpoints {
		e := &slice.Endpoints[i]
		if len(e.Addresses) == 0 || e.TargetRef == nil || !namesPod(e.TargetRef, slice.Namespace) {
			continue
		}
		ip, fault := parseAddress(e.Addresses[0])
		if fault != "" {
			continue
		}
		ref := endpointRef{slice, i}
		if known, is := d.endpoints[ip]; is && !known.samePod(ref) {
			ref = endpointRef{}
		}
		d.endpoints[ip] = ref
	}
}

// samePod says whether both endpoints are one pod.
func (r endpointRef) samePod(other endpointRef) bool {
	return r.slice != nil && r.slice.Namespace == other.slice.Namespace &&
		r.slice.Endpoints[r.index].TargetRef.Name == other.slice.Endpoints[other.index].TargetRef.Name
}

// addService adds the ports of UDP at every address of the Service.
func (d *Directory) addService(service *corev1.Service) {
	for i := range service.Spec.Ports {
		port := &service.Spec.Ports[i]
		if port.Protocol != corev1.ProtocolUDP || !validPort(port.Port) || !validPortName(port.Name) {
			continue
		}
		name := ServicePort{Namespace: service.Namespace, Service: service.Name, PortName: port.Name, Port: uint16(port.Port)}
		add := func(address string) {
			if ip, fault := parseAddress(address); fault == "" {
				at := netip.AddrPortFrom(ip, name.Port)
				if _, taken := d.udp[at]; !taken {
					d.udp[at] = name
				}
			}
		}
		for _, address := range clusterIPs(service) {
			add(address)
		}
		for _, address := range service.Spec.ExternalIPs {
			add(address)
		}
		for _, ingress := range service.Status.LoadBalancer.Ingress {
			add(ingress.IP)
		}
	}
}

// Pod is the pod that has the address, as an EndpointSlice says: a Backend without a
// port. False if none does, or several do.
func (d *Directory) Pod(ip netip.Addr) (Backend, bool) {
	ref, is := d.endpoints[ip]
	if !is || ref.slice == nil {
		return Backend{}, false
	}
	e := &ref.slice.Endpoints[ref.index]
	c := candidate{endpoint: &endpoint{slice: ref.slice, from: e}, address: netip.AddrPortFrom(ip, 0)}
	return c.backend(), true
}

// UDP is the Service port of UDP at the address.
func (d *Directory) UDP(at netip.AddrPort) (ServicePort, bool) {
	port, is := d.udp[at]
	return port, is
}
