// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/redirect"
)

// guarded is a redirector that touches the kernel only while this generation
// of the agent may: a newer one that took over is never disturbed, and one
// that is not ready yet changes nothing that is in use.
type guarded struct {
	*redirect.Applier
	place *handover.Place
	// leaving is set once the agent gives the node back: nothing is applied any
	// more.
	leaving *atomic.Bool
}

// Withdraw removes what is no more, if this generation owns the rules or
// nobody alive does.
func (g guarded) Withdraw(ctx context.Context, plan *redirect.Plan) error {
	return g.place.Alone(func() error { return g.Applier.Withdraw(ctx, plan) })
}

// Apply takes the rules over from an older generation, or from one that died,
// and makes the plan hold.
func (g guarded) Apply(ctx context.Context, plan *redirect.Plan) error {
	if !g.place.Mine() {
		g.Forget()
	}
	return g.place.Take(func() error {
		if g.leaving.Load() {
			return redirect.ErrReleased
		}
		err := g.Applier.Apply(ctx, plan)
		if g.leaving.Load() {
			// The release that came first may have been before Apply began.
			return errors.Join(redirect.ErrReleased, g.Applier.Release())
		}
		return err
	})
}

// Release stops redirecting, unless another generation redirects. It does not
// wait for an Apply under way. Should a newer generation take over in the same
// instant, it finds the pods missing at its next check and puts them back.
func (g guarded) Release() error {
	return g.place.AtOnce(g.Applier.Release)
}

// Engaged says whether this generation's rules redirect.
func (g guarded) Engaged() bool {
	return g.Applier.Engaged() && g.place.Mine()
}

// Superseded says whether a newer generation owns the rules and lives.
func (g guarded) Superseded() bool { return g.place.Superseded() }

// Refresh renews the switch, if this generation owns the rules.
func (g guarded) Refresh(ctx context.Context) error {
	return g.place.Hold(func() error { return g.Applier.Refresh(ctx) })
}

// Drift compares the kernel with the plan, if this generation owns the rules.
func (g guarded) Drift(ctx context.Context, plan *redirect.Plan) (found []redirect.Drift, err error) {
	err = g.place.Hold(func() error {
		found, err = g.Applier.Drift(ctx, plan)
		return err
	})
	return found, err
}

// Cleanup removes everything, unless another generation uses it.
func (g guarded) Cleanup(ctx context.Context) error {
	return g.place.Alone(func() error { return g.Applier.Cleanup(ctx) })
}
