// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
)

// Steps are what a round does to the kernel.
type Steps interface {
	Prepare(ctx context.Context, desired *plan.Plan) error
	Withdraw(ctx context.Context, desired *plan.Plan) error
	Apply(ctx context.Context, desired *plan.Plan) error
	Disengage() error
	Refresh(ctx context.Context) error
	Drift(ctx context.Context, desired *plan.Plan) ([]apply.Drift, error)
	Engaged() bool
}

// Kernel is what plans are applied to: an apply.Applier in host mode, a
// pods.Pods in pod mode.
type Kernel interface {
	Steps
	Forget()
	Cleanup(ctx context.Context) error
}

// Fence is a Kernel that this generation of the agent touches only while it may:
// a newer generation that took over is never disturbed, and one that is not ready
// yet changes nothing that is in use. Its methods are as safe as the Kernel's.
type Fence struct {
	kernel  Kernel
	lease   *Lease
	sweeper *Sweeper
	// leaving is set once the agent gives the node back: nothing is applied any
	// more.
	leaving atomic.Bool
	// last is the ownership as it was last read, for when it can't be read, and
	// unread why it can't.
	last   atomic.Pointer[Ownership]
	unread atomic.Pointer[error]
}

// NewFence puts a fence around the kernel. sweeper removes what agents of the
// other mode left. The fence closes neither.
func NewFence(k Kernel, l *Lease, sweeper *Sweeper) *Fence {
	return &Fence{kernel: k, lease: l, sweeper: sweeper}
}

// Benign says whether an error is no fault: redirection was stopped while the step
// ran, and the next step starts it again, or another generation owns the kernel.
func Benign(err error) bool {
	return errors.Is(err, apply.ErrDisengaged) || errors.Is(err, ErrSuperseded)
}

// Fault is err, or nil if it is a benign one.
func Fault(err error) error {
	if Benign(err) {
		return nil
	}
	return err
}

// ErrOtherMode says that redirection by an agent of the other mode, which has
// ended, could not be stopped. It ends by itself, within the switch's timeout.
var ErrOtherMode = errors.New("redirection of the other mode is not stopped")

// Prepare puts into the kernel what Envoy's listeners need. Redirection by an
// agent of the other mode that has ended is stopped first: Envoy may be the same
// one, and lose that agent's listeners with the first configuration. The error
// wraps ErrOtherMode when that failed; the next call tries it again.
func (f *Fence) Prepare(ctx context.Context, desired *plan.Plan) error {
	err := f.sweeper.begin(ctx, f.lease)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrOtherMode, err)
	}
	return errors.Join(err, f.kernel.Prepare(ctx, desired))
}

// Withdraw removes what the plan has no more, if this generation owns the rules
// or nobody alive does.
func (f *Fence) Withdraw(ctx context.Context, desired *plan.Plan) error {
	return f.lease.IfNoOtherOwner(func() error { return f.kernel.Withdraw(ctx, desired) })
}

// Apply takes the rules over from an older generation, or from one that died, and
// makes the plan hold. What one of another mode left is removed afterwards: a
// connection that both would redirect goes to Envoy once.
func (f *Fence) Apply(ctx context.Context, desired *plan.Plan) error {
	if !f.ownership().Owner {
		f.kernel.Forget()
		f.sweeper.restart()
	}
	err := f.lease.TakeOver(func() error {
		if f.leaving.Load() {
			return apply.ErrDisengaged
		}
		err := f.kernel.Apply(ctx, desired)
		if f.leaving.Load() {
			// Leave may have come before Apply began.
			return errors.Join(apply.ErrDisengaged, f.kernel.Disengage())
		}
		return err
	})
	if err == nil || errors.Is(err, pods.ErrPartial) {
		f.sweeper.sweep(ctx, f.lease)
	}
	return err
}

// Disengage stops redirecting, unless another generation redirects. It does not
// wait for an Apply under way. Should a newer generation take over in the same
// instant, it finds the pods missing at its next check and puts them back.
func (f *Fence) Disengage() error { return f.lease.IfNoOtherOwnerNow(f.kernel.Disengage) }

// Leave stops redirecting for good: no Apply redirects again.
func (f *Fence) Leave() error {
	f.leaving.Store(true)
	return f.Disengage()
}

// Engaged says whether this generation's rules redirect.
func (f *Fence) Engaged() bool { return f.kernel.Engaged() && f.ownership().Owner }

// Superseded says whether a newer generation owns the rules and lives.
func (f *Fence) Superseded() bool { return f.ownership().Superseded }

// ownership is who owns the rules; if that can't be told, it is what was last
// known.
func (f *Fence) ownership() Ownership {
	o, err := f.lease.Ownership()
	if err != nil {
		f.unread.Store(&err)
		if last := f.last.Load(); last != nil {
			return *last
		}
		return Ownership{}
	}
	f.unread.Store(nil)
	f.last.Store(&o)
	return o
}

// OwnershipErr is why it can't be told at the moment who owns the rules; nil when
// it can.
func (f *Fence) OwnershipErr() error {
	if err := f.unread.Load(); err != nil {
		return fmt.Errorf("can't tell which agent owns the rules: %w", *err)
	}
	return nil
}

// Refresh renews the switch, if this generation owns the rules.
func (f *Fence) Refresh(ctx context.Context) error {
	return f.lease.IfOwner(func() error { return f.kernel.Refresh(ctx) })
}

// Drift compares the kernel with the plan, if this generation owns the rules.
func (f *Fence) Drift(ctx context.Context, desired *plan.Plan) (found []apply.Drift, err error) {
	err = f.lease.IfOwner(func() error {
		found, err = f.kernel.Drift(ctx, desired)
		return err
	})
	if err == nil {
		f.sweeper.sweep(ctx, f.lease)
	}
	return found, err
}

// Cleanup removes everything, unless another generation uses it: also what one of
// the other mode left and this one has not removed yet.
func (f *Fence) Cleanup(ctx context.Context) error {
	f.sweeper.finish(ctx, f.lease)
	return f.lease.IfNoOtherOwner(func() error { return f.kernel.Cleanup(ctx) })
}

// Leftover says what of the other mode could not be removed; empty when there is
// no such thing.
func (f *Fence) Leftover() string { return f.sweeper.leftover() }

// Close gives up the generation's slot. What is in the kernel stays.
func (f *Fence) Close() error { return f.lease.Close() }
