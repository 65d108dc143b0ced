// SPDX-License-Identifier: Apache-2.0

package server

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

// maxLoads is how many clusters that Envoy doesn't have it is sent before it has
// answered: it works on what it was sent in turn, one or two milliseconds for each,
// so that this bounds how long a first call waits for others.
const maxLoads = 64

// demand is a name that is to be sent, even if nothing changed.
type demand struct {
	// number is the order of the demands.
	number uint64
	// asked says that the client asks for it; else it follows from a publication.
	asked bool
}

// Use is a frontend of which Envoy has clusters.
type Use struct {
	Frontend netip.AddrPort
	// Port is the Service port that it belonged to when Envoy first had a cluster
	// of it; zero if it was none's.
	Port model.ServicePort
	// Memory estimates what its clusters take in Envoy, in bytes.
	Memory int64
	// Number is the order in which frontends came into use.
	Number uint64

	clusters int
}

// uses are the frontends in use, and what they and their owners take.
type uses struct {
	byAddress map[netip.AddrPort]*Use
	// held is by Service and by namespace: what their frontends take.
	services, namespaces map[string]int64
	memory               int64
	last                 uint64
}

func newUses() uses {
	return uses{byAddress: map[netip.AddrPort]*Use{}, services: map[string]int64{}, namespaces: map[string]int64{}}
}

// serviceName is a Service's namespace and name.
func serviceName(p model.ServicePort) string { return p.Namespace + "/" + p.Service }

// grow changes what a frontend takes.
func (u *uses) grow(use *Use, by int64) {
	use.Memory += by
	u.memory += by
	add(u.services, serviceName(use.Port), by)
	add(u.namespaces, use.Port.Namespace, by)
}

func add(sums map[string]int64, key string, by int64) {
	if sums[key] += by; sums[key] == 0 {
		delete(sums, key)
	}
}

// change counts that a session's version of a cluster changes from before to now;
// f is the frontend, nil if there is none of this address.
func (u *uses) change(at netip.AddrPort, f *model.Frontend, before, now string) {
	use := u.byAddress[at]
	switch {
	case (before == absent) == (now == absent):
	case now != absent:
		if use == nil {
			u.last++
			use = &Use{Frontend: at, Number: u.last, Port: f.Port}
			u.byAddress[at] = use
		}
		use.clusters++
		u.grow(use, xds.ClusterMemory(f))
	case use.clusters > 1:
		u.grow(use, -use.Memory/int64(use.clusters))
		use.clusters--
	default:
		u.grow(use, -use.Memory)
		delete(u.byAddress, at)
	}
}

// refresh reckons anew what each frontend takes: its backends may have changed.
func (u *uses) refresh(frontend func(netip.AddrPort) *model.Frontend) {
	for at, use := range u.byAddress {
		u.grow(use, int64(use.clusters)*xds.ClusterMemory(frontend(at))-use.Memory)
	}
}

// frontend finds a frontend of the present node; one without backends if there is
// none of this address.
func (s *Server) frontend(at netip.AddrPort) *model.Frontend {
	if f, ok := s.current.Frontend(at); ok {
		return f
	}
	return &model.Frontend{Address: at}
}

// load is a cluster that a client does not have.
type load struct {
	name     string
	resource *resource
	demand   demand
	frontend *model.Frontend
}

// load adds to a message the clusters that come next, and says whether any follows
// from a publication. What a Service or a namespace has little of comes first, and
// then what was asked for last: so the first calls to others don't wait for a pod
// that calls thousands at once. The rest stays due. What there is no memory for is
// answered as removed: the call fails at once.
func (s *session) load(msg *discoveryv3.DeltaDiscoveryResponse, loads []load) (changing bool) {
	t, u := &s.subs[xds.KindCluster], &s.server.uses
	slices.SortFunc(loads, func(a, b load) int {
		x, y := a.frontend.Port, b.frontend.Port
		return cmp.Or(
			cmp.Compare(u.services[serviceName(x)], u.services[serviceName(y)]),
			cmp.Compare(u.namespaces[x.Namespace], u.namespaces[y.Namespace]),
			cmp.Compare(b.demand.number, a.demand.number), cmp.Compare(a.name, b.name))
	})
	taken, next := u.memory, maxLoads-t.flying
	for _, l := range loads {
		size := xds.ClusterMemory(l.frontend)
		if limit := s.server.limitOf(l.frontend.Port); limit > 0 && taken+size > limit {
			s.deny(msg, l)
			continue
		}
		taken += size
		if next > 0 {
			next--
			changing = changing || !l.demand.asked
			delete(t.due, l.name)
			s.add(msg, xds.KindCluster, l.name, l.resource)
		}
	}
	return changing
}

// limitOf is how much may be in use for a further cluster of a Service port to be
// loaded; 0 for no limit. The last eighth is for those who have less than a quarter:
// so one who has much is at the limit before all others are.
func (s *Server) limitOf(p model.ServicePort) int64 {
	limit := s.cfg.ClusterMemory
	if max(s.uses.services[serviceName(p)], s.uses.namespaces[p.Namespace]) > limit/4 {
		return limit / 8 * 7
	}
	return limit
}

// deny answers that there is no cluster of this name, though there could be.
func (s *session) deny(msg *discoveryv3.DeltaDiscoveryResponse, l load) {
	t := &s.subs[xds.KindCluster]
	_, told := t.sent[l.name]
	delete(t.due, l.name)
	if l.demand.asked || !told {
		s.add(msg, xds.KindCluster, l.name, nil)
	}
	if s.server.denied == nil {
		s.server.denied = map[netip.AddrPort]struct{}{}
	}
	s.server.denied[l.frontend.Address] = struct{}{}
}

// InUse are the frontends that Envoy has requested, sorted. Names of no frontend
// are not among them.
func (s *Server) InUse() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.uses.byAddress), netip.AddrPort.Compare)
}

// Uses are the same in the order in which they came into use, with what they take,
// and the frontends that Envoy asked for and was denied for want of memory. It asks
// for a denied one never again.
func (s *Server) Uses() (uses []Use, denied []netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	uses = make([]Use, 0, len(s.uses.byAddress))
	for _, use := range s.uses.byAddress {
		uses = append(uses, *use)
	}
	slices.SortFunc(uses, func(a, b Use) int { return cmp.Compare(a.Number, b.Number) })
	return uses, slices.SortedFunc(maps.Keys(s.denied), netip.AddrPort.Compare)
}
