// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// shares are what namespaces, and their Services, take with the frontends in use
// that are not left.
type shares struct {
	memory int64
	// namespaces are sorted by name.
	namespaces []*namespace
}

// namespace is the share of one.
type namespace struct {
	name   string
	memory int64
	// services are its own, sorted by name.
	services []*service
	// idle counts the frontends that can be taken.
	idle int
}

// service is the share of one, by its namespace and name.
type service struct {
	name   string
	memory int64
	uses   []Use
	// idle are the frontends that can be taken, the first to be taken at the end.
	idle []Use
}

// newShares adds up.
func newShares(uses []Use, left map[netip.AddrPort]Left) shares {
	uses = slices.DeleteFunc(slices.Clone(uses), func(u Use) bool {
		_, is := left[u.Frontend]
		return is
	})
	slices.SortFunc(uses, func(a, b Use) int {
		return cmp.Or(cmp.Compare(a.Port.Namespace, b.Port.Namespace), cmp.Compare(a.Port.Service, b.Port.Service), cmp.Compare(a.Number, b.Number))
	})
	s := shares{}
	var ns *namespace
	var svc *service
	for _, u := range uses {
		if ns == nil || ns.name != u.Port.Namespace {
			ns, svc = &namespace{name: u.Port.Namespace}, nil
			s.namespaces = append(s.namespaces, ns)
		}
		if name := u.Port.ServiceName(); svc == nil || svc.name != name {
			svc = &service{name: name}
			ns.services = append(ns.services, svc)
		}
		s.memory += u.Memory
		ns.memory += u.Memory
		svc.memory += u.Memory
		svc.uses = append(svc.uses, u)
	}
	return s
}

// rank finds the frontends that can be taken, in this order: those used least
// recently, and of those used as recently the one that came into use last.
func (s *shares) rank(idle func(Use) bool, used map[netip.AddrPort]time.Time) {
	for _, ns := range s.namespaces {
		for _, svc := range ns.services {
			svc.idle = slices.DeleteFunc(slices.Clone(svc.uses), func(u Use) bool { return !idle(u) })
			slices.SortFunc(svc.idle, func(a, b Use) int {
				return cmp.Or(used[b.Frontend].Compare(used[a.Frontend]), cmp.Compare(a.Number, b.Number))
			})
			ns.idle += len(svc.idle)
		}
	}
}

// take takes the next frontend: of the namespace that takes most, among those that
// have any to take, and of its Service that takes most; false if there is none.
func (s *shares) take() (Use, bool) {
	var from *namespace
	for _, ns := range s.namespaces {
		if ns.idle > 0 && (from == nil || ns.memory > from.memory) {
			from = ns
		}
	}
	if from == nil {
		return Use{}, false
	}
	var of *service
	for _, svc := range from.services {
		if len(svc.idle) > 0 && (of == nil || svc.memory > of.memory) {
			of = svc
		}
	}
	last := len(of.idle) - 1
	u := of.idle[last]
	of.idle = of.idle[:last]
	of.memory -= u.Memory
	from.memory -= u.Memory
	from.idle--
	s.memory -= u.Memory
	return u, true
}

// byRest are the frontends that are left, those that have rested longest first.
func (l *Ledger) byRest() []netip.AddrPort {
	return slices.SortedFunc(maps.Keys(l.Left), func(a, b netip.AddrPort) int {
		return cmp.Or(l.Left[a].At.Compare(l.Left[b].At), a.Compare(b))
	})
}
