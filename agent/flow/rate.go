// SPDX-License-Identifier: Apache-2.0

package flow

import "time"

// All is the share of all flows, in millionths.
const All = 1_000_000

// Rate chooses the share of flows that a source sends, so that no more than so many come
// in a second. Its zero value sends none. It is not safe for concurrent use.
type Rate struct {
	// Most is the maximum in a second.
	Most        float64
	share, want float64
}

// Want sets the share, in millionths, that somebody wants, at most. A source that was
// slowed down is not at once asked for all again.
func (r *Rate) Want(share uint32) {
	want := float64(share)
	if slowed := r.share < r.want; !slowed || want < r.share {
		r.share = want
	}
	r.want = want
}

// Share is the share to send now, in millionths.
func (r *Rate) Share() uint32 { return uint32(r.share) }

// Saw tells how many flows came in a time. It returns an estimate of how many were not
// sent because there were too many, and adapts the share.
func (r *Rate) Saw(flows int, in time.Duration) (lost uint64) {
	if r.share < r.want && r.share > 0 {
		lost = uint64(float64(flows) * (r.want/r.share - 1))
	}
	perSecond := float64(flows) / in.Seconds()
	switch {
	case perSecond > r.Most:
		r.share = max(1, r.share*r.Most/perSecond)
	case perSecond < r.Most/2 && r.share < r.want:
		r.share = min(r.want, 2*r.share)
	}
	return lost
}
