// SPDX-License-Identifier: Apache-2.0

package kernelflow

import (
	"net/netip"
	"time"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/redirect/conntrack"
)

const (
	// maxOpen is of how many open connections the beginning is kept: 2 MB at most.
	maxOpen = 1 << 16
	// maxMerged bounds what waits to be merged; beyond it, flows are told one by one.
	maxMerged = 4096
	// mergeTCP and mergeUDP are how long flows that are alike wait for each other.
	mergeTCP, mergeUDP = 10 * time.Second, time.Minute
	// singleTCP and singleUDP are how many of these are told one by one before: who calls
	// a Service a thousand times a second, or asks for a name before each call, is not to
	// crowd all others out.
	singleTCP, singleUDP = 5, 1
)

// Tracker makes flows of events. It is not safe for concurrent use.
type Tracker struct {
	// open has when connections began that have not ended, in nanoseconds, by their ID.
	open map[uint32]int64
	// merged are the flows that were told and may be followed by others alike.
	merged map[kind]*group
}

// kind is what flows have in common that are merged.
type kind struct {
	source            netip.Addr
	frontend, backend netip.AddrPort
	udp, open         bool
	detail            string
}

// merging is how long flows of the kind wait, and how many are told one by one before.
func (k kind) merging() (wait time.Duration, single int) {
	if k.udp {
		return mergeUDP, singleUDP
	}
	return mergeTCP, singleTCP
}

// group is flows of one kind since a time.
type group struct {
	since time.Time
	told  int
	// last stands for those that were not told.
	last flow.Flow
}

// NewTracker makes a Tracker that knows of no connection.
func NewTracker() *Tracker {
	return &Tracker{open: map[uint32]int64{}, merged: map[kind]*group{}}
}

// Event returns the flows to tell because of an event: one, or none if it waits for
// others, or two. The end of a connection whose beginning is not known is not told.
func (t *Tracker) Event(e *conntrack.Event, now time.Time) []flow.Flow {
	if e.Kind == conntrack.Began {
		delete(t.open, e.ID) // The end of another with this ID was lost.
		t.See(&e.Entry, now)
		f := Open(&e.Entry)
		f.Time, _ = t.Since(e.ID)
		return t.merge(f, now)
	}
	began, known := t.open[e.ID]
	if !known {
		return nil
	}
	delete(t.open, e.ID)
	if e.Protocol == conntrack.UDP && e.Replied && !e.Counted {
		return nil // Nothing that its beginning has not told.
	}
	return t.merge(ended(&e.Entry, time.Unix(0, began), now), now)
}

// See notes a connection that is there now, and may have been before.
func (t *Tracker) See(e *conntrack.Entry, now time.Time) {
	if _, known := t.open[e.ID]; known && e.Start.IsZero() {
		return
	}
	if len(t.open) >= maxOpen {
		for id := range t.open { // Any will do.
			delete(t.open, id)
			break
		}
	}
	if !e.Start.IsZero() {
		now = e.Start
	}
	t.open[e.ID] = now.UnixNano()
}

// Since is when a connection began, or was first seen; false if it never was.
func (t *Tracker) Since(id uint32) (time.Time, bool) {
	began, known := t.open[id]
	return time.Unix(0, began), known
}

// merge tells a flow, or has it wait.
func (t *Tracker) merge(f flow.Flow, now time.Time) []flow.Flow {
	k := kind{f.Source.Address.Addr(), f.Frontend, f.Backend.Address, f.Protocol == protocolUDP, f.Open, f.Detail}
	wait, single := k.merging()
	g := t.merged[k]
	var before []flow.Flow
	if g != nil && now.Sub(g.since) >= wait {
		before, g = g.waiting(), nil
		delete(t.merged, k)
	}
	if g == nil {
		if len(t.merged) >= maxMerged {
			return append(before, f)
		}
		g = &group{since: now}
		t.merged[k] = g
	}
	if g.told < single {
		g.told++
		return append(before, f)
	}
	f.Connections = g.last.Connections + 1
	f.BytesSent += g.last.BytesSent
	f.BytesReceived += g.last.BytesReceived
	g.last = f
	return before
}

// waiting are the flows of a group that were not told, as one.
func (g *group) waiting() []flow.Flow {
	if g.last.Connections == 0 {
		return nil
	}
	if g.last.Connections == 1 {
		g.last.Connections = 0
	}
	return []flow.Flow{g.last}
}

// Flush returns the flows that have waited for long enough.
func (t *Tracker) Flush(now time.Time) []flow.Flow {
	var flows []flow.Flow
	for k, g := range t.merged {
		if wait, _ := k.merging(); now.Sub(g.since) >= wait {
			flows = append(flows, g.waiting()...)
			delete(t.merged, k)
		}
	}
	return flows
}
