// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

// maxNacks bounds how many refused responses are remembered.
const maxNacks = 32

// Status is what the server knows of its Envoy at one moment.
type Status struct {
	// Connected says whether any Envoy has an ADS stream open, and Since when
	// the oldest one was opened. Streams counts them: two while one Envoy takes
	// over from another.
	Connected bool
	Since     time.Time
	Streams   int
	// ListenersAcked says whether every connected Envoy has accepted all
	// listeners and the routes, as they are now, except those in Refused.
	ListenersAcked bool
	// Pending counts the responses that are not answered yet.
	Pending int
	// Kinds counts the responses of each kind of resource so far.
	Kinds [xds.KindCount]KindStatus
	// NackCount counts all refused responses so far. Nacks are the last of them,
	// the newest at the end; they must not be changed.
	NackCount int
	Nacks     []Nack
	// Refused is what an Envoy does not have as it is now because it refused it.
	// It is sent again after five seconds, then at increasing intervals.
	Refused Refused
	// Version is the version of Envoy, the lowest if there are several; unknown
	// before one reports it.
	Version Version
	// InUse is the number of frontends that Envoy has requested.
	InUse int
	// UseChanges counts the clusters that Envoy was given and has lost so far: what Seen
	// returns changes with them alone.
	UseChanges uint64
	// Memory estimates what their clusters take in Envoy, in bytes. Denied is the
	// number of frontends that Envoy has requested and there was no memory for.
	Memory int64
	Denied int
	// Crowded counts the Services that have xds.MaxFrontends in use, or more.
	Crowded int
	// Settled says whether an Envoy is connected, and each one has been sent,
	// and has accepted or refused, everything that is published. Loading says that
	// if it isn't, that is only for what Envoy has requested since.
	Settled, Loading bool
}

// Refused are the names that Envoy says it refused; all of the response's if it
// doesn't say which.
func (n Nack) Refused() []string {
	sent := make(map[string]struct{}, len(n.Names))
	for _, name := range n.Names {
		sent[name] = struct{}{}
	}
	if named := namedErrors(n.Detail, sent); len(named) > 0 {
		return sortedKeys(named)
	}
	return n.Names
}

// KindStatus is how many responses were sent, accepted and refused.
type KindStatus struct{ Responses, Acks, Nacks int }

// Nack is a refused response: Envoy keeps what it had before.
type Nack struct {
	At time.Time
	// Type is the kind of resource: cluster, endpoints, listener or route.
	Type string
	// Names are those of the resources in the refused response. Envoy uses
	// those of them that it finds no error in.
	Names []string
	// Detail is the error that Envoy reports.
	Detail string
}

// Refused is what an Envoy does not have as it is now, because it refused it:
// what is affected, and the reason, which names the resources. It never changes
// once made. What is not in it, Envoy serves as published.
type Refused struct {
	// Frontends are those whose cluster or endpoints are refused.
	Frontends map[netip.AddrPort]string
	// Pods are those, by UID, of which any listener is refused, in pod mode. A
	// pod needs all of its listeners: connections would be sent to each.
	Pods map[string]string
	// Listeners are the refused listeners of host mode.
	Listeners map[ListenerKey]string
	// Routes is the reason why the routes are refused; empty if they are not.
	// Listeners of class tcp don't need them.
	Routes string
}

// ListenerKey is which frontends a listener of host mode is for: those of one
// class and one address family.
type ListenerKey struct {
	Class model.Class
	V6    bool
}

// Any says whether anything is refused.
func (r Refused) Any() bool { return !r.Equal(Refused{}) }

// Equal says whether the same is refused, for the same reasons.
func (r Refused) Equal(o Refused) bool {
	return r.Routes == o.Routes && maps.Equal(r.Frontends, o.Frontends) && maps.Equal(r.Pods, o.Pods) && maps.Equal(r.Listeners, o.Listeners)
}

// Frontend is the reason why Envoy can't serve a frontend, whichever pod calls
// it; empty if it can.
func (r Refused) Frontend(f *model.Frontend) string {
	if why := r.Frontends[f.Address]; why != "" {
		return why
	}
	if f.Class != model.ClassTCP && r.Routes != "" {
		return r.Routes
	}
	return r.Listeners[ListenerKey{Class: f.Class, V6: f.Address.Addr().Is6()}]
}

// add adds a resource. spec is the listener's, if it is one.
func (r *Refused) add(k xds.Kind, name, why string, spec xds.ListenerSpec) {
	why = k.String() + " " + name + ": " + why
	switch {
	case k == xds.KindRoute:
		r.Routes = why
	case k != xds.KindListener:
		if frontend, _, ok := xds.FrontendOf(name); ok {
			addReason(&r.Frontends, frontend, why)
		}
	case spec.Addr.IsValid():
		addReason(&r.Listeners, ListenerKey{Class: spec.Class, V6: spec.Addr.Is6()}, why)
	default:
		addReason(&r.Pods, spec.Target.UID, why)
	}
}

// addReason adds a reason to those that a map has for the key.
func addReason[K comparable](reasons *map[K]string, key K, why string) {
	if *reasons == nil {
		*reasons = map[K]string{}
	}
	if before := (*reasons)[key]; before != "" && before != why {
		why = before + "; " + why
	}
	(*reasons)[key] = why
}

// Version is a version of Envoy: major, minor, patch. The zero Version is an
// unknown one.
type Version [3]uint32

// versionOf is the version that Envoy reports; unknown if it reports none.
func versionOf(node *corev3.Node) Version {
	v := node.GetUserAgentBuildVersion().GetVersion()
	return Version{v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch()}
}

// Known says whether the version is known.
func (v Version) Known() bool { return v != Version{} }

// Less says whether v is older than w; false if either is unknown.
func (v Version) Less(w Version) bool {
	return v.Known() && w.Known() && slices.Compare(v[:], w[:]) < 0
}

// String is the version in the form 1.40.0; empty if it is unknown.
func (v Version) String() string {
	if !v.Known() {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2])
}

// Status is the present state; it never changes afterwards. Its cost does not
// grow with the names in use.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil {
		s.refused = &Refused{}
		for sess := range s.sessions {
			sess.addRefused(s.refused)
		}
	}
	connected := len(s.sessions) > 0
	st := Status{
		Connected: connected, ListenersAcked: connected, Settled: connected,
		Streams: len(s.sessions), Kinds: s.kinds,
		Nacks: s.nacks, Refused: *s.refused, InUse: len(s.uses.byAddress), UseChanges: s.uses.changes, Memory: s.uses.memory, Denied: len(s.denied), Crowded: s.uses.crowded,
		Loading: connected,
	}
	for _, k := range s.kinds {
		st.NackCount += k.Nacks
	}
	for sess := range s.sessions {
		if st.Since.IsZero() || sess.since.Before(st.Since) {
			st.Since = sess.since
		}
		st.ListenersAcked = st.ListenersAcked && sess.listening().answered
		st.Settled = st.Settled && sess.settled()
		st.Loading = st.Loading && sess.upToDate()
		st.Pending += len(sess.pending)
		if !st.Version.Known() || sess.version.Less(st.Version) {
			st.Version = sess.version
		}
	}
	return st
}

// countNack counts a refused response. The caller holds the lock.
func (s *Server) countNack(r response, detail string) {
	s.kinds[r.kind].Nacks++
	last := s.nacks[max(0, len(s.nacks)+1-maxNacks):]
	s.nacks = append(slices.Clone(last), Nack{At: s.now(), Type: r.kind.String(), Names: sortedKeys(r.versions), Detail: detail})
}
