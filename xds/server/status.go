// SPDX-License-Identifier: Apache-2.0

package server

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/xds"
)

// maxNacks bounds how many refused responses are remembered.
const maxNacks = 32

// Status is what the server knows of its Envoy at one moment.
type Status struct {
	// Connected says whether any Envoy has an ADS stream open, and Since when
	// the oldest one was opened. Streams counts them: two while one Envoy
	// takes over from another.
	Connected bool
	Since     time.Time
	Streams   int
	// ListenersAcked says whether every connected Envoy has accepted all
	// listeners and the routes, as they are now, but for those in Refused.
	ListenersAcked bool
	// Pending counts the responses that are not answered yet, and Oldest is
	// when the first of them was sent.
	Pending int
	Oldest  time.Time
	// NackCount counts all refused responses so far. Nacks are the last of them,
	// the newest at the end; they must not be changed.
	NackCount int
	Nacks     []Nack
	// Refused is what an Envoy does not have as it is now because it refused it.
	// It is sent again, after five seconds and then ever more rarely.
	Refused Refused
	// Version is the version of Envoy, the lowest if there are several; unknown
	// before one says which it is.
	Version Version
	// Kinds are the figures of each kind of resource.
	Kinds [xds.KindCount]KindStatus
	// InUse is the number of frontends that Envoy has asked for.
	InUse int
	// Settled says whether an Envoy is connected, and each one has been sent,
	// and has accepted or refused, everything that is published.
	Settled bool
}

// Nack is a refused response: Envoy keeps what it had before.
type Nack struct {
	At time.Time
	// Type is the kind of resource: cluster, endpoints, listener or route.
	Type string
	// Names are those of the resources in the refused response. Envoy takes
	// over those of them that it finds no fault with.
	Names []string
	// Detail is what Envoy says is wrong.
	Detail string
}

// KindStatus is how many responses of one kind of resource were sent, accepted
// and refused, since the server was made.
type KindStatus struct {
	Type                   string
	Responses, Acks, Nacks int
}

// Status is the present state; it never changes afterwards. What it costs does
// not grow with the names in use.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	connected := len(s.sessions) > 0
	st := Status{
		Connected: connected, ListenersAcked: connected, Settled: connected,
		Streams:   len(s.sessions),
		NackCount: s.nackCount, Nacks: s.nacks,
		Refused: s.allRefused(),
		InUse:   len(s.inUse),
	}
	for k := range xds.KindCount {
		c := s.counts[k]
		st.Kinds[k] = KindStatus{Type: k.String(), Responses: c.responses, Acks: c.acks, Nacks: c.nacks}
	}
	for sess := range s.sessions {
		st.add(sess)
	}
	return st
}

// add takes a session into account.
func (st *Status) add(sess *session) {
	st.Since = earliest(st.Since, sess.since)
	st.ListenersAcked = st.ListenersAcked && sess.listening().answered
	st.Settled = st.Settled && sess.settled()
	st.Pending += len(sess.pending)
	for _, r := range sess.pending {
		st.Oldest = earliest(st.Oldest, r.at)
	}
	if !st.Version.Known() || sess.version.Less(st.Version) {
		st.Version = sess.version
	}
}

// allRefused is what any session refuses. The caller holds the lock.
func (s *Server) allRefused() Refused {
	if s.refused == nil {
		s.refused = &Refused{}
		for sess := range s.sessions {
			sess.addRefused(s.refused)
		}
	}
	return *s.refused
}

// InUse are the frontends that Envoy has asked for, sorted. Names of no frontend
// are not among them.
func (s *Server) InUse() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.inUse), netip.AddrPort.Compare)
}

// countUse notes that a session's version of a cluster changes. The caller holds
// the lock.
func (s *Server) countUse(cluster, before, now string) {
	if (before == absent) == (now == absent) {
		return
	}
	frontend, ok := xds.FrontendOf(cluster)
	if !ok {
		return
	}
	if now != absent {
		s.inUse[frontend]++
		return
	}
	if s.inUse[frontend]--; s.inUse[frontend] == 0 {
		delete(s.inUse, frontend)
	}
}

// earliest is the earlier of two times, of which a may be unset.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// countNack records that a response was refused. The caller holds the lock.
func (s *Server) countNack(r response, detail string) {
	s.nackCount++
	s.counts[r.kind].nacks++
	kept := s.nacks[max(0, len(s.nacks)+1-maxNacks):]
	s.nacks = append(slices.Clone(kept), Nack{At: s.now(), Type: r.kind.String(), Names: sortedKeys(r.versions), Detail: detail})
}
