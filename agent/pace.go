// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"golang.org/x/sys/unix"
)

// pace says when the next round may begin, so that a change that comes alone is
// handled at once, and a storm of changes costs no more than a share of one core:
// rounds are paid for out of time that is saved up while there are none. It is
// not safe for concurrent use.
type pace struct {
	// debounce is how long a change waits for others in any case.
	debounce time.Duration
	// saved is the time that rounds may take now; negative while a dear round
	// has yet to be made up for. It was right at the time updated.
	saved   time.Duration
	updated time.Time
}

const (
	// paceShare is the part of a core that rounds may take in the long run: one
	// in so many. Receiving the changes comes on top.
	paceShare = 80
	// paceSavings bounds what is saved up: dozens of rounds of a large cluster.
	paceSavings = 400 * time.Millisecond
	// paceLongest bounds the pause before a round, however dear the last ones
	// were.
	paceLongest = time.Second
)

// newPace makes a pace with all that can be saved.
func newPace(debounce time.Duration) *pace { return &pace{debounce: debounce, saved: paceSavings} }

// next is how long a change that comes now waits for its round.
func (p *pace) next(now time.Time) time.Duration {
	p.save(now)
	return max(p.debounce, min(-p.saved*paceShare, paceLongest))
}

// done notes that a round has ended which took cost, in processor time.
func (p *pace) done(now time.Time, cost time.Duration) {
	p.save(now)
	// What would take longer than the longest pause is forgiven, or a change long
	// after the storm would still wait.
	p.saved = max(p.saved-cost, -paceLongest/paceShare)
}

// save adds what was saved since it was last looked at.
func (p *pace) save(now time.Time) {
	if !p.updated.IsZero() {
		p.saved = min(p.saved+now.Sub(p.updated)/paceShare, paceSavings)
	}
	p.updated = now
}

// processorTime is what the process has used so far. A round that waits for a core
// costs nobody anything, so it is not the time on the clock.
func processorTime() time.Duration {
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) != nil {
		return 0 // It fails for no process that exists.
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
