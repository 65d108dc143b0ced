// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/redirect"
)

// applier puts plans into the kernel.
type applier interface {
	Prepare(ctx context.Context, plan *redirect.Plan) error
	Withdraw(ctx context.Context, plan *redirect.Plan) error
	Apply(ctx context.Context, plan *redirect.Plan) error
	Release() error
	Refresh(ctx context.Context) error
	Drift(ctx context.Context, plan *redirect.Plan) ([]redirect.Drift, error)
	Engaged() bool
}

// kernel is a redirect.Applier in host mode, a redirect.Pods in pod mode.
type kernel interface {
	applier
	Forget()
	Cleanup(ctx context.Context) error
}

// guarded is a redirector that touches the kernel only while this generation
// of the agent may: a newer one that took over is never disturbed, and one
// that is not ready yet changes nothing that is in use.
type guarded struct {
	kernel
	place *handover.Place
	// leaving is set once the agent gives the node back: nothing is applied any
	// more.
	leaving *atomic.Bool
	// sweeper removes what agents of the other mode left.
	sweeper *sweeper
}

// Prepare puts into the kernel what Envoy's listeners need. Before Envoy is told
// of any for the first time, redirection by an agent of another mode that has
// ended ends too: Envoy may be the same, and lose that agent's listeners.
func (g guarded) Prepare(ctx context.Context, plan *redirect.Plan) error {
	return errors.Join(g.sweeper.begin(ctx, g.place), g.kernel.Prepare(ctx, plan))
}

// Withdraw removes what is no more, if this generation owns the rules or
// nobody alive does.
func (g guarded) Withdraw(ctx context.Context, plan *redirect.Plan) error {
	return g.place.Alone(func() error { return g.kernel.Withdraw(ctx, plan) })
}

// Apply takes the rules over from an older generation, or from one that died,
// and makes the plan hold. What one of another mode left goes afterwards: a
// connection that both would redirect goes to Envoy once.
func (g guarded) Apply(ctx context.Context, plan *redirect.Plan) error {
	if !g.place.Mine() {
		g.Forget()
		g.sweeper.again()
	}
	err := g.place.Take(func() error {
		if g.leaving.Load() {
			return redirect.ErrReleased
		}
		err := g.kernel.Apply(ctx, plan)
		if g.leaving.Load() {
			// The release that came first may have been before Apply began.
			return errors.Join(redirect.ErrReleased, g.kernel.Release())
		}
		return err
	})
	if err == nil || errors.Is(err, redirect.ErrPartial) {
		g.sweeper.sweep(ctx, g.place)
	}
	return err
}

// Release stops redirecting, unless another generation redirects. It does not
// wait for an Apply under way. Should a newer generation take over in the same
// instant, it finds the pods missing at its next check and puts them back.
func (g guarded) Release() error {
	return g.place.AtOnce(g.kernel.Release)
}

// Engaged says whether this generation's rules redirect.
func (g guarded) Engaged() bool {
	return g.kernel.Engaged() && g.place.Mine()
}

// Superseded says whether a newer generation owns the rules and lives.
func (g guarded) Superseded() bool { return g.place.Superseded() }

// Refresh renews the switch, if this generation owns the rules.
func (g guarded) Refresh(ctx context.Context) error {
	return g.place.Hold(func() error { return g.kernel.Refresh(ctx) })
}

// Drift compares the kernel with the plan, if this generation owns the rules.
func (g guarded) Drift(ctx context.Context, plan *redirect.Plan) (found []redirect.Drift, err error) {
	err = g.place.Hold(func() error {
		found, err = g.kernel.Drift(ctx, plan)
		return err
	})
	if err == nil {
		g.sweeper.sweep(ctx, g.place)
	}
	return found, err
}

// Cleanup removes everything, unless another generation uses it: also what one
// of the other mode left and this one has not come to remove.
func (g guarded) Cleanup(ctx context.Context) error {
	g.sweeper.last(ctx, g.place)
	return g.place.Alone(func() error { return g.kernel.Cleanup(ctx) })
}

// Leftover says what of the other mode could not be removed; empty when there
// is no such thing.
func (g guarded) Leftover() string { return g.sweeper.leftover() }
