// SPDX-License-Identifier: Apache-2.0

// Package kubeproxy is a stand-in for kube-proxy: from Services and
// EndpointSlices it writes the rules that kube-proxy writes for cluster IPs, in
// its iptables and in its nftables mode, so that tests meet the same packet
// filter as on a node. It knows no node ports, load balancers, session affinity
// or traffic policies.
package kubeproxy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Run runs a command with text on its standard input and returns its standard
// output.
type Run func(ctx context.Context, stdin string, argv ...string) (string, error)

// Proxy writes rules into the network namespace that its Run is in.
type Proxy interface {
	// Sync makes the kernel's rules those of the ports, whatever they were.
	Sync(ctx context.Context, ports []Port) error
}

// Port is one port of a Service at one of its cluster IPs.
type Port struct {
	// Name is namespace/service:port.
	Name string
	// Protocol is tcp, udp or sctp.
	Protocol string
	Address  netip.AddrPort
	// Endpoints are where to send connections, sorted; none means to reject.
	Endpoints []netip.AddrPort
}

// Ports resolves Services by their EndpointSlices, sorted by address.
func Ports(services []*corev1.Service, endpointSlices []*discoveryv1.EndpointSlice) []Port {
	byService := map[[2]string][]*discoveryv1.EndpointSlice{}
	for _, s := range endpointSlices {
		key := [2]string{s.Namespace, s.Labels[discoveryv1.LabelServiceName]}
		byService[key] = append(byService[key], s)
	}
	var ports []Port
	for _, s := range services {
		for _, text := range s.Spec.ClusterIPs {
			ip, err := netip.ParseAddr(text)
			if err != nil {
				continue // headless
			}
			for _, p := range s.Spec.Ports {
				ports = append(ports, Port{
					Name:      s.Namespace + "/" + s.Name + ":" + p.Name,
					Protocol:  strings.ToLower(string(p.Protocol)),
					Address:   netip.AddrPortFrom(ip, uint16(p.Port)),
					Endpoints: endpoints(byService[[2]string{s.Namespace, s.Name}], ip, p.Name),
				})
			}
		}
	}
	slices.SortFunc(ports, func(a, b Port) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Protocol, b.Protocol))
	})
	return ports
}

// endpoints are the ready endpoints of a port, of the cluster IP's family, or
// the serving-terminating ones when none is ready.
func endpoints(all []*discoveryv1.EndpointSlice, clusterIP netip.Addr, portName string) []netip.AddrPort {
	var ready, terminating []netip.AddrPort
	for _, s := range all {
		for _, p := range s.Ports {
			if p.Port == nil || p.Name == nil && portName != "" || p.Name != nil && *p.Name != portName {
				continue
			}
			for _, e := range s.Endpoints {
				ip, err := netip.ParseAddr(e.Addresses[0])
				if err != nil || ip.Is4() != clusterIP.Is4() {
					continue
				}
				addr := netip.AddrPortFrom(ip, uint16(*p.Port))
				switch c := e.Conditions; {
				case c.Ready == nil || *c.Ready:
					ready = append(ready, addr)
				case c.Serving != nil && *c.Serving:
					terminating = append(terminating, addr)
				}
			}
		}
	}
	if len(ready) == 0 {
		ready = terminating
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	return slices.Compact(ready)
}

// ofFamily are the ports whose address is IPv6, or IPv4.
func ofFamily(ports []Port, six bool) []Port {
	var out []Port
	for _, p := range ports {
		if p.Address.Addr().Is6() == six {
			out = append(out, p)
		}
	}
	return out
}

// hash is a short name for a long one, as the kernel limits chain names.
func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, " ")))
	return base32.StdEncoding.EncodeToString(sum[:])[:16]
}
