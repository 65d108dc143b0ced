// SPDX-License-Identifier: Apache-2.0

package server

import (
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/xds"
)

// maxNacks bounds how many refusals are remembered.
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
	// listeners and the routes, as they are now. In pod mode a listener that was
	// refused doesn't count: it is in Refused.
	ListenersAcked bool
	// Pending counts the responses that are not answered yet, and Oldest is
	// when the first of them was sent.
	Pending int
	Oldest  time.Time
	// NackCount counts all refusals so far. Nacks are the last of them, the
	// newest at the end.
	NackCount int
	Nacks     []Nack
	// Refused are the listeners that an Envoy does not have as they are now
	// because it refused them, by name, with what it said. They are sent again
	// with the first Publish after ten seconds.
	Refused map[string]string
	// EnvoyVersion is the version of Envoy, as in 1.40.0, the lowest if there
	// are several; empty before one says which it is.
	EnvoyVersion string
	// Kinds are the figures of each kind of resource.
	Kinds []KindStatus
	// InUse are the frontends that Envoy has asked for, by address, sorted.
	// Names of no frontend are not among them.
	InUse []string
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

// Status is a copy of the present state; it never changes afterwards.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Connected:      len(s.sessions) > 0,
		Streams:        len(s.sessions),
		ListenersAcked: len(s.sessions) > 0,
		NackCount:      s.nackCount,
		Nacks:          slices.Clone(s.nacks),
		Settled:        len(s.sessions) > 0,
	}
	for k := range xds.KindCount {
		c := s.counts[k]
		st.Kinds = append(st.Kinds, KindStatus{Type: k.String(), Responses: c.responses, Acks: c.acks, Nacks: c.nacks})
	}
	st.Refused = map[string]string{}
	inUse, version := map[string]struct{}{}, envoyVersion{}
	for sess := range s.sessions {
		st.add(sess, inUse)
		version = version.lower(sess.version)
	}
	st.InUse, st.EnvoyVersion = sortedKeys(inUse), version.String()
	return st
}

// add takes a session into account.
func (st *Status) add(sess *session, inUse map[string]struct{}) {
	st.Since = earliest(st.Since, sess.since)
	st.ListenersAcked = st.ListenersAcked && sess.accepted()
	st.Settled = st.Settled && sess.settled()
	sess.refusals(st.Refused)
	st.Pending += len(sess.pending)
	for _, r := range sess.pending {
		st.Oldest = earliest(st.Oldest, r.at)
	}
	for name, version := range sess.subs[xds.KindCluster].sent {
		if frontend, ok := xds.FrontendOf(name); ok && version != absent {
			inUse[frontend.String()] = struct{}{}
		}
	}
}

// earliest is the earlier of two times, of which a may be unset.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// refused records that a response was refused. The caller holds the lock.
func (s *Server) refused(was response, detail string) {
	s.nackCount++
	s.counts[was.kind].nacks++
	s.nacks = append(s.nacks, Nack{At: s.now(), Type: was.kind.String(), Names: sortedKeys(was.versions), Detail: detail})
	if len(s.nacks) > maxNacks {
		s.nacks = slices.Clone(s.nacks[1:])
	}
	s.notify()
}
