// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"sync"
)

// Loss is why flows are not in the log.
type Loss string

// The losses.
const (
	// LossFollower is a flow that a follower didn't take in time.
	LossFollower Loss = "follower"
	// LossSampled is a flow that its source left out because there were too many.
	LossSampled Loss = "sampled"
	// LossOverrun is one that the kernel dropped because the agent didn't take it in time.
	LossOverrun Loss = "overrun"
)

// followerBuffer is how many flows wait for a follower before it loses some: a second of
// what Envoy sends at most.
const followerBuffer = 5_000

// Log keeps the last flows, in memory of a fixed size, and gives each new one to those
// who follow. All methods may be called at any time and concurrently; none waits for a
// reader.
type Log struct {
	mu        sync.Mutex
	ring      []Flow
	added     uint64
	followers map[*Follower]struct{}
	lost      map[Loss]uint64
	// changed receives when the number of followers changed.
	changed chan struct{}
}

// NewLog makes a log of the last size flows; at least one.
func NewLog(size int) *Log {
	return &Log{
		ring: make([]Flow, max(size, 1)), followers: map[*Follower]struct{}{}, lost: map[Loss]uint64{},
		changed: make(chan struct{}, 1),
	}
}

// Add keeps flows, in order, and gives them their IDs.
func (l *Log) Add(flows ...Flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range flows {
		l.added++
		f.ID = l.added
		l.ring[(f.ID-1)%uint64(len(l.ring))] = f
		for follower := range l.followers {
			if !follower.filter.Matches(&f) {
				continue
			}
			select {
			case follower.flows <- f:
			default:
				follower.lost++
				l.lost[LossFollower]++
			}
		}
	}
}

// Lose counts flows that a source left out.
func (l *Log) Lose(why Loss, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost[why] += n
}

// Last are the newest flows that match, at most n, oldest first.
func (l *Log) Last(n int, filter Filter) []Flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []Flow{}
	for id := l.added; id > 0 && id+uint64(len(l.ring)) > l.added && len(out) < n; id-- {
		if f := l.ring[(id-1)%uint64(len(l.ring))]; filter.Matches(&f) {
			out = append(out, f)
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// Get is the flow with this ID; false if it is not in the log any more, or never was.
func (l *Log) Get(id uint64) (Flow, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id == 0 || id > l.added || id+uint64(len(l.ring)) <= l.added {
		return Flow{}, false
	}
	return l.ring[(id-1)%uint64(len(l.ring))], true
}

// Follow gives every flow from now on that matches, until the follower is closed.
func (l *Log) Follow(filter Filter) *Follower {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := &Follower{log: l, filter: filter, flows: make(chan Flow, followerBuffer)}
	l.followers[f] = struct{}{}
	l.notify()
	return f
}

// Followers is how many follow now.
func (l *Log) Followers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.followers)
}

// Changed receives when Followers may have changed. It is for one receiver.
func (l *Log) Changed() <-chan struct{} { return l.changed }

func (l *Log) notify() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Counts are what a Log has seen.
type Counts struct {
	// Added is how many flows came, and Size how many are kept.
	Added uint64 `json:"added"`
	Size  int    `json:"size"`
	// Lost counts those that are not in the log, or not in a follower's, by reason.
	Lost map[Loss]uint64 `json:"lost"`
}

// Counts are those of this log up to now.
func (l *Log) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Counts{Added: l.added, Size: len(l.ring), Lost: map[Loss]uint64{}}
	for why, n := range l.lost {
		c.Lost[why] = n
	}
	return c
}

// Follower receives flows of a Log.
type Follower struct {
	log    *Log
	filter Filter
	flows  chan Flow
	lost   uint64
}

// Flows receives them. It is never closed.
func (f *Follower) Flows() <-chan Flow { return f.flows }

// Lost is how many flows this follower did not take in time, and so didn't get.
func (f *Follower) Lost() uint64 {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	return f.lost
}

// Close ends it.
func (f *Follower) Close() {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	delete(f.log.followers, f)
	f.log.notify()
}
