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

const (
	// maxLoads is how many clusters come or go before Envoy has answered. Each takes
	// its main thread about a millisecond, and each worker a part of that, in which it
	// serves nobody: so this bounds how long requests, and first calls, wait.
	maxLoads = 8
	// maxFrontends is how many frontends of one Service Envoy is given: the agent leaves
	// further ones to kube-proxy above xds.MaxFrontends, but not in no time.
	maxFrontends = xds.MaxFrontends + 2*maxLoads
)

// demand is a name that is to be sent, even if nothing changed.
type demand struct {
	// number is the order of the demands.
	number uint64
	// asked says that nobody but the client waits for it, as it asks for it or is to
	// drop it; else it follows from a publication.
	asked bool
}

// Use is a frontend of which Envoy has clusters.
type Use struct {
	Frontend netip.AddrPort
	// Port is the Service port that it belongs to, or did last; zero if it never was
	// one's.
	Port model.ServicePort
	// Memory estimates what its clusters take in Envoy, in bytes.
	Memory int64
	// Number is the order in which frontends came into use.
	Number uint64

	clusters int
}

// share is what a Service or a namespace has in use.
type share struct {
	memory    int64
	frontends int
}

// uses are the frontends in use, and what they and their owners take.
type uses struct {
	byAddress            map[netip.AddrPort]*Use
	services, namespaces map[string]share
	memory               int64
	// last is the number of the last that came into use, and changes counts the clusters
	// that came and went.
	last, changes uint64
	// crowded counts the Services that have xds.MaxFrontends in use, or more.
	crowded int
}

func newUses() uses {
	return uses{byAddress: map[netip.AddrPort]*Use{}, services: map[string]share{}, namespaces: map[string]share{}}
}

// grow changes what a frontend takes; frontends is 1 when it comes, and -1 when it goes.
func (u *uses) grow(use *Use, memory int64, frontends int) {
	use.Memory += memory
	u.memory += memory
	before, now := grow(u.services, use.Port.ServiceName(), memory, frontends)
	switch most := xds.MaxFrontends; {
	case before < most && now >= most:
		u.crowded++
	case before >= most && now < most:
		u.crowded--
	}
	grow(u.namespaces, use.Port.Namespace, memory, frontends)
}

// grow changes a share and says how many frontends it had before and has now.
func grow(shares map[string]share, key string, memory int64, frontends int) (before, now int) {
	s := shares[key]
	before, now = s.frontends, s.frontends+frontends
	if now == 0 {
		delete(shares, key)
	} else {
		shares[key] = share{s.memory + memory, now}
	}
	return before, now
}

// change counts that a session's version of a cluster changes from before to now;
// f is the frontend, nil if there is none of this address.
func (u *uses) change(at netip.AddrPort, f *model.Frontend, before, now string) {
	if (before == absent) == (now == absent) {
		return
	}
	u.changes++
	use := u.byAddress[at]
	switch {
	case now != absent:
		if use == nil {
			u.last++
			use = &Use{Frontend: at, Number: u.last, Port: f.Port}
			u.byAddress[at] = use
			u.grow(use, 0, 1)
		}
		use.clusters++
		u.grow(use, xds.ClusterMemory(f), 0)
	case use.clusters > 1:
		u.grow(use, -use.Memory/int64(use.clusters), 0)
		use.clusters--
	default:
		u.grow(use, -use.Memory, -1)
		delete(u.byAddress, at)
	}
}

// refresh reckons anew what each frontend takes, and whose it is: its backends may
// have changed, or its Service.
func (u *uses) refresh(frontend func(netip.AddrPort) *model.Frontend) {
	for at, use := range u.byAddress {
		f := frontend(at)
		if f.Port != use.Port && f.Port.Service != "" {
			u.grow(use, -use.Memory, -1)
			use.Port = f.Port
			u.grow(use, 0, 1)
		}
		u.grow(use, int64(use.clusters)*xds.ClusterMemory(f)-use.Memory, 0)
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

// load is a cluster that a client does not have, or does not keep: resource is nil.
type load struct {
	name     string
	resource *resource
	demand   demand
	frontend *model.Frontend
	// service and namespace are what those of the frontend have in use.
	service, namespace share
}

// newLoad is the load of a name that is due, or becomes so.
func (s *session) newLoad(name string, r *resource) load {
	t, u := &s.subs[xds.KindCluster], &s.server.uses
	d, due := t.due[name]
	if !due {
		d = s.server.demand(r == nil)
		t.due[name] = d
	}
	at, _, _ := xds.FrontendOf(name)
	f := s.server.frontend(at)
	return load{name, r, d, f, u.services[f.Port.ServiceName()], u.namespaces[f.Port.Namespace]}
}

// before orders loads. What a Service or a namespace has little of comes first, and
// then what was asked for last: so the first calls to others don't wait for a pod
// that calls thousands at once. Nobody waits for what goes.
func (l *load) before(o *load) int {
	if (l.resource == nil) != (o.resource == nil) {
		if l.resource == nil {
			return 1
		}
		return -1
	}
	return cmp.Or(
		cmp.Compare(l.service.memory, o.service.memory), cmp.Compare(l.namespace.memory, o.namespace.memory),
		cmp.Compare(o.demand.number, l.demand.number), cmp.Compare(l.name, o.name))
}

// load adds to a message the clusters that come or go next, and says whether any
// follows from a publication. The rest stays due. What there is no room for, and
// nothing goes to make room, is answered as removed: the call fails at once.
func (s *session) load(msg *discoveryv3.DeltaDiscoveryResponse, loads []load) (changing bool) {
	t := &s.subs[xds.KindCluster]
	slices.SortFunc(loads, func(a, b load) int { return a.before(&b) })
	taken, more, next := s.server.uses.memory, map[string]int{}, maxLoads-t.flying
	going := len(loads) > 0 && loads[len(loads)-1].resource == nil
	for i := range loads {
		l := &loads[i]
		if l.resource != nil {
			name, size := l.frontend.Port.ServiceName(), xds.ClusterMemory(l.frontend)
			crowded, full := s.server.crowded(l, more[name]), s.server.full(l, taken+size)
			if crowded || full && !going {
				s.deny(msg, l)
			}
			if crowded || full {
				continue
			}
			taken += size
			more[name]++
		}
		if next > 0 {
			next--
			changing = changing || !l.demand.asked
			delete(t.due, l.name)
			s.add(msg, xds.KindCluster, l.name, l.resource)
		}
	}
	return changing
}

// full says whether there is no room for a further cluster, with which so much memory
// would be taken. The last eighth is for those who have less than a quarter: so one
// who has much is at the limit before all others are.
func (s *Server) full(l *load, memory int64) bool {
	limit := s.limit()
	if max(l.service.memory, l.namespace.memory) > limit/4 {
		limit -= limit / 8
	}
	return limit > 0 && memory > limit
}

// crowded says whether a Service, of which so many frontends are to be loaded first,
// has too many.
func (s *Server) crowded(l *load, first int) bool {
	return s.limit() > 0 && l.service.frontends+first >= maxFrontends
}

// limit is how much memory may be in use; 0 for no limit. Two Envoys have it twice.
func (s *Server) limit() int64 { return s.cfg.ClusterMemory * int64(max(len(s.sessions), 1)) }

// deny answers that there is no cluster of this name, though there could be.
func (s *session) deny(msg *discoveryv3.DeltaDiscoveryResponse, l *load) {
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

// Seen is what Envoy has seen on connections to the frontends in use: it asks for another
// cluster for each protocol. An Envoy that connects again still knows what it had.
func (s *Server) Seen() map[netip.AddrPort]model.Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[netip.AddrPort]model.Seen, len(s.uses.byAddress))
	for sess := range s.sessions {
		for name, version := range sess.subs[xds.KindCluster].sent {
			if at, seen, ok := xds.FrontendOf(name); ok && version != absent {
				all[at] = all[at].And(seen)
			}
		}
	}
	return all
}

// Uses are those in use in the order in which they came into use, with what they take,
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
