// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// endpoint is one address of an EndpointSlice, read once for all ports.
type endpoint struct {
	ip                          netip.Addr
	ready, serving, terminating bool
	slice                       *discoveryv1.EndpointSlice
	from                        *discoveryv1.Endpoint
}

// candidate is an endpoint of one Service port.
type candidate struct {
	*endpoint
	address netip.AddrPort
	order   int
}

// endpointScratch holds the endpoints of one Service while it is read.
type endpointScratch struct {
	slices     []*discoveryv1.EndpointSlice
	endpoints  []endpoint
	ends       []int // endpoints of slices[i] end before ends[i]
	candidates []candidate
}

// fill takes up the endpoints of the slices, and reports the bad ones.
func (s *endpointScratch) fill(slices []*discoveryv1.EndpointSlice, p *problems) {
	s.slices, s.endpoints, s.ends = slices, s.endpoints[:0], s.ends[:0]
	for _, slice := range slices {
		if slice.AddressType == discoveryv1.AddressTypeFQDN {
			p.add(kindEndpointSlice, &slice.ObjectMeta, "addressType", "FQDN has no IP addresses; ignored")
		} else {
			s.endpoints = appendEndpoints(s.endpoints, slice, p)
			checkPorts(slice, p)
		}
		s.ends = append(s.ends, len(s.endpoints))
	}
}

// appendEndpoints reads the usable endpoints of a slice. Conditions that are
// not set mean ready, as the API says.
func appendEndpoints(to []endpoint, slice *discoveryv1.EndpointSlice, p *problems) []endpoint {
	var missing, unusable, wrongType tally
	for i := range slice.Endpoints {
		from := &slice.Endpoints[i]
		if len(from.Addresses) == 0 {
			missing.add(i, "")
			continue
		}
		// All addresses of an endpoint are the same thing; consumers take the first.
		ip, fault := parseAddress(from.Addresses[0])
		if fault != "" {
			unusable.add(i, from.Addresses[0]+" "+fault)
			continue
		}
		if !ofType(ip, slice.AddressType) {
			wrongType.add(i, from.Addresses[0]+" is not "+string(slice.AddressType))
			continue
		}
		to = append(to, endpoint{
			ip:          ip,
			ready:       from.Conditions.Ready == nil || *from.Conditions.Ready,
			serving:     from.Conditions.Serving == nil || *from.Conditions.Serving,
			terminating: from.Conditions.Terminating != nil && *from.Conditions.Terminating,
			slice:       slice,
			from:        from,
		})
	}
	if missing.count > 0 {
		p.add(kindEndpointSlice, &slice.ObjectMeta, missing.at("endpoints", ".addresses"),
			"is empty; the endpoint is ignored"+missing.more())
	}
	for _, t := range []tally{unusable, wrongType} {
		if t.count > 0 {
			p.add(kindEndpointSlice, &slice.ObjectMeta, t.at("endpoints", ".addresses[0]"),
				t.value+"; the endpoint is ignored"+t.more())
		}
	}
	return to
}

// ofType says whether the address is what the slice promises; a file may leave
// the promise out.
func ofType(ip netip.Addr, addressType discoveryv1.AddressType) bool {
	switch addressType {
	case discoveryv1.AddressTypeIPv4:
		return ip.Is4()
	case discoveryv1.AddressTypeIPv6:
		return ip.Is6()
	default:
		return true
	}
}

func checkPorts(slice *discoveryv1.EndpointSlice, p *problems) {
	for i := range slice.Ports {
		switch port := &slice.Ports[i]; {
		case port.Port == nil:
			p.add(kindEndpointSlice, &slice.ObjectMeta, indexed("ports", i, ".port"), "is not set; ignored")
		case !validPort(*port.Port):
			p.add(kindEndpointSlice, &slice.ObjectMeta, indexed("ports", i, ".port"),
				strconv.Itoa(int(*port.Port))+" is not a port; ignored")
		}
	}
}

// of returns the endpoints of one Service port in one address family, sorted by
// address and valid until the next call. An address that appears twice counts
// once: it is in two slices while it moves from one to the other, or two pods
// have it while the CNI reuses it, and then the one that stays is meant.
func (s *endpointScratch) of(portName string, v6 bool) []candidate {
	list := s.candidates[:0]
	start := 0
	for i, slice := range s.slices {
		end := s.ends[i]
		for p := range slice.Ports {
			port := &slice.Ports[p]
			if !matches(port, portName) {
				continue
			}
			for e := start; e < end; e++ {
				ep := &s.endpoints[e]
				if ep.ip.Is6() == v6 {
					address := netip.AddrPortFrom(ep.ip, uint16(*port.Port))
					list = append(list, candidate{endpoint: ep, address: address, order: len(list)})
				}
			}
		}
		start = end
	}
	s.candidates = list
	slices.SortFunc(list, compareCandidates)
	return slices.CompactFunc(list, func(x, y candidate) bool { return x.address == y.address })
}

// matches says whether a slice's port is the Service port of that name. Name
// and protocol have defaults which the API server fills in, and files need not.
func matches(port *discoveryv1.EndpointPort, name string) bool {
	if port.Port == nil || !validPort(*port.Port) {
		return false
	}
	if port.Protocol != nil && !IsTCP(*port.Protocol) {
		return false
	}
	return port.Name == nil && name == "" || port.Name != nil && *port.Name == name
}

// compareCandidates puts of several with one address the one that stays first: it
// is not terminating, then ready, then serving, then in the first slice.
func compareCandidates(x, y candidate) int {
	if c := x.address.Compare(y.address); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(x.rank(), y.rank()), cmp.Compare(x.order, y.order))
}

func (e *endpoint) rank() int {
	rank := 0
	for weight, bad := range []bool{!e.serving, !e.ready, e.terminating} {
		if bad {
			rank += 1 << weight
		}
	}
	return rank
}
