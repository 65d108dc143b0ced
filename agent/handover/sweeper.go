// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

// SweepInterval is the pause after a sweep that failed: it may look into every
// pod of the node.
const SweepInterval = 30 * time.Second

// OtherMode is what a sweeper does to what the other mode has in the kernel.
type OtherMode struct {
	// Stop ends the other mode's redirection at once, and no connection. Clean
	// removes all of it, for when no connection needs it any more.
	Stop, Clean func(context.Context) error
	// Always has it looked for even with no sign of an agent of the other mode.
	Always bool
}

// Sweeper removes what agents of the other mode left in the kernel, whether they
// crashed or are about to end.
type Sweeper struct {
	other OtherMode
	now   func() time.Time
	log   *zap.Logger

	mu sync.Mutex
	// begun is set when begin has nothing left to do, stopped when the other
	// mode's redirection was stopped, done when nothing of it is left.
	begun, stopped, done bool
	due                  time.Time
	failed               error
}

// NewSweeper makes a Sweeper. now is its clock.
func NewSweeper(other OtherMode, now func() time.Time, log *zap.Logger) *Sweeper {
	return &Sweeper{other: other, now: now, log: log}
}

// begin stops, once, the redirection that an agent of another mode left when it
// ended, or this generation before it was restarted: its Envoy may be the same,
// and is about to lose that mode's listeners. An agent that lives has an Envoy of
// its own, and goes on until sweep. What failed is tried again by the next call.
func (s *Sweeper) begin(ctx context.Context, lease *Lease) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		return nil
	}
	o, err := lease.Ownership()
	if err != nil {
		return err
	}
	others, err := lease.OthersAlive()
	if err != nil {
		return err
	}
	if o.OtherMode && (!others || o.ModeChanged) {
		if err := Fault(lease.IfNoOtherOwner(func() error { return s.other.Stop(ctx) })); err != nil {
			return err
		}
	}
	s.begun = true
	return nil
}

// restart begins anew: another generation owned the kernel meanwhile.
func (s *Sweeper) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped, s.done, s.due = false, false, time.Time{}
}

// sweep does what can be done now. An older agent beside an Envoy that drains is
// left to finish, and removes its rules by itself when it ends.
func (s *Sweeper) sweep(ctx context.Context, lease *Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done || s.now().Before(s.due) {
		return
	}
	err := s.try(ctx, lease)
	if Benign(err) {
		return
	}
	if err != nil {
		s.due = s.now().Add(SweepInterval)
		if s.failed == nil || s.failed.Error() != err.Error() {
			s.log.Warn("what an agent of the other mode left is not removed, its redirection ends by itself", zap.Error(err))
		}
	}
	s.failed = err
}

func (s *Sweeper) try(ctx context.Context, lease *Lease) error {
	o, err := lease.Ownership()
	if err != nil {
		return err
	}
	if !s.other.Always && !o.SweepDue {
		s.done = true
		return nil
	}
	if !s.stopped {
		if err := lease.IfOwner(func() error { return s.other.Stop(ctx) }); err != nil {
			return fmt.Errorf("stop its redirection: %w", err)
		}
		s.stopped = true
	}
	if others, err := lease.OthersAlive(); others || err != nil {
		return err
	}
	if err := lease.IfOwner(func() error { return s.other.Clean(ctx) }); err != nil {
		return fmt.Errorf("remove its rules: %w", err)
	}
	if err := lease.Swept(); err != nil {
		return err
	}
	s.done = true
	return nil
}

// finish is the last sweep, of an agent that ends. One that doesn't own the rules
// has nothing to sweep.
func (s *Sweeper) finish(ctx context.Context, lease *Lease) {
	if o, err := lease.Ownership(); err == nil && !o.Owner {
		return
	}
	s.mu.Lock()
	s.due = time.Time{}
	s.mu.Unlock()
	s.sweep(ctx, lease)
}

func (s *Sweeper) leftover() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		return ""
	}
	return s.failed.Error()
}
