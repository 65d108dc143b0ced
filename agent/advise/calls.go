// SPDX-License-Identifier: Apache-2.0

package advise

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/model"
)

// calls are those of one Service port.
type calls struct {
	name     flow.Service
	frontend netip.AddrPort
	callers  map[netip.Addr]bool
	backends map[netip.AddrPort]*Backend
	// held are the open connections, by caller.
	held map[netip.Addr]*held
}

// held are the open connections of one caller to one Service port.
type held struct {
	caller  flow.Peer
	service flow.Service
	backend flow.Peer
	// long counts those that are long-lived; since is when the oldest of them began, if
	// that is known of all.
	long  int
	since time.Time
	known bool
	// elsewhere is set if one of them, long-lived or not, leads to another backend.
	elsewhere bool
}

// of are the calls of the flow's Service port.
func of(all map[flow.Service]*calls, f *flow.Flow) *calls {
	c := all[f.Service]
	if c == nil {
		c = &calls{
			name: f.Service, frontend: f.Frontend, callers: map[netip.Addr]bool{},
			backends: map[netip.AddrPort]*Backend{}, held: map[netip.Addr]*held{},
		}
		all[f.Service] = c
	}
	c.callers[f.Source.Address.Addr()] = true
	if c.backends[f.Backend.Address] == nil {
		c.backends[f.Backend.Address] = &Backend{Peer: f.Backend}
	}
	return c
}

// open takes up an open connection.
func (c *calls) open(f *flow.Flow, in Input) {
	c.backends[f.Backend.Address].Open++
	h := c.held[f.Source.Address.Addr()]
	if h == nil {
		caller := f.Source
		caller.Address = netip.AddrPortFrom(caller.Address.Addr(), 0)
		h = &held{caller: caller, service: f.Service, backend: f.Backend, known: true}
		c.held[caller.Address.Addr()] = h
	}
	h.elsewhere = h.elsewhere || h.backend.Address != f.Backend.Address
	switch {
	case f.Time.IsZero():
		h.long++
		h.known = false
	case in.Now.Sub(f.Time) >= in.Long:
		if h.long++; h.since.IsZero() || f.Time.Before(h.since) {
			h.since = f.Time
		}
	}
}

// began takes up connections that began.
func (c *calls) began(f *flow.Flow) { c.backends[f.Backend.Address].Begun += max(1, f.Connections) }

// service is what came of all calls.
func (c *calls) service(f *model.Frontend) Service {
	s := Service{
		Service: c.name, Address: c.frontend.String(), Class: f.Class.String(), Why: f.ClassReason, Bypass: f.Bypass,
		Callers: len(c.callers), Backends: []Backend{},
	}
	for i := range f.Backends {
		b := &f.Backends[i]
		if c.backends[b.Address] == nil {
			c.backends[b.Address] = &Backend{Peer: flow.Peer{Address: b.Address, Namespace: b.Namespace, Pod: b.Pod, Node: b.Node, Zone: b.Zone}}
		}
	}
	weight := func(b *Backend) int { return max(b.Open, b.Begun) }
	for _, b := range c.backends {
		s.Connections += weight(b)
	}
	for _, b := range c.backends {
		if s.Connections > 0 {
			b.Share = float64(weight(b)) / float64(s.Connections)
		}
		b.Fair = 1 / float64(len(c.backends))
		s.Backends = append(s.Backends, *b)
	}
	slices.SortFunc(s.Backends, func(x, y Backend) int {
		return cmp.Or(cmp.Compare(y.Share, x.Share), x.Address.Compare(y.Address))
	})
	return s
}
