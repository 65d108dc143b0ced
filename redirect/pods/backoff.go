// SPDX-License-Identifier: Apache-2.0

package pods

import "time"

const (
	// firstPause is the pause after a pod first failed to be applied, firstSearch
	// after it was first not found; each doubles up to longestPause.
	firstPause   = time.Second
	firstSearch  = 200 * time.Millisecond
	longestPause = time.Minute
	// applyBudget is how long one Apply may take before what is left of it waits
	// for the next: the agent's loop has to renew the switch of all pods meanwhile.
	applyBudget = 5 * time.Second
)

// backoff paces the attempts at one pod, so that a pod which can't be redirected
// costs next to nothing. The zero value is that of a pod that did not fail.
type backoff struct {
	pause time.Duration
	next  time.Time
}

// due says whether an attempt is worth it at this time.
func (b backoff) due(now time.Time) bool { return !now.Before(b.next) }

// failed notes a failed attempt; first is the pause after the first of them.
func (b *backoff) failed(now time.Time, first time.Duration) {
	b.pause = min(max(first, 2*b.pause), longestPause)
	b.next = now.Add(b.pause)
}
