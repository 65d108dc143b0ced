// SPDX-License-Identifier: Apache-2.0

package server

import (
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/xds"
)

// Stream is what one Envoy has asked for, was sent and answered.
type Stream struct {
	Since   time.Time
	Version Version
	// Pending counts the responses that are not answered yet.
	Pending int
	// Resources are in no order.
	Resources []StreamResource
}

// StreamResource is a resource that an Envoy has asked for by name, or was sent.
type StreamResource struct {
	Kind xds.Kind
	Name string
	// Requested says that it is not sent yet. Sent is the version that was sent last, and
	// Accepted the last that Envoy accepted; each is empty for a name that doesn't exist.
	Requested      bool
	Sent, Accepted string
	// Answered says whether Envoy has accepted or refused what was sent last.
	Answered bool
	// Refused is why Envoy refused what it was sent last, at RefusedAt; empty if it didn't.
	Refused   string
	RefusedAt time.Time
}

// Streams are those of the connected Envoys, the oldest first. Its cost grows with the
// names in use: it is for people who look.
func (s *Server) Streams() []Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Stream
	for sess := range s.sessions {
		stream := Stream{Since: sess.since, Version: sess.version, Pending: len(sess.pending)}
		for k := range xds.KindCount {
			stream.Resources = sess.subs[k].appendResources(stream.Resources, k)
		}
		all = append(all, stream)
	}
	slices.SortFunc(all, func(a, b Stream) int { return a.Since.Compare(b.Since) })
	return all
}

// appendResources adds those of one kind. The caller holds the lock.
func (t *subscription) appendResources(all []StreamResource, k xds.Kind) []StreamResource {
	all = slices.Grow(all, max(len(t.sent), len(t.names)))
	for name, version := range t.sent {
		r := StreamResource{Kind: k, Name: name, Sent: version}
		var acked bool
		r.Accepted, acked = t.acked[name]
		r.Answered = acked && r.Accepted == version
		if n, refused := t.refused[name]; refused && n.version == version {
			r.Refused, r.RefusedAt, r.Answered = n.detail, n.at, true
		}
		all = append(all, r)
	}
	for name := range t.names {
		if _, sent := t.sent[name]; !sent {
			all = append(all, StreamResource{Kind: k, Name: name, Requested: true})
		}
	}
	return all
}
