// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/handover"
)

// sweepInterval is the pause after a sweep that failed: it may look into every
// pod of the node.
const sweepInterval = 30 * time.Second

// sweeper removes what agents of the other mode left in the kernel, whether they
// crashed or are about to end. It is for one goroutine at a time.
type sweeper struct {
	// stop ends the other mode's redirection at once, and no connection. clean
	// removes all of it, for when no connection needs it any more.
	stop, clean func(context.Context) error
	// always looks for leavings even with no sign of an agent of the other mode.
	always bool
	log    *zap.Logger

	begun, stopped, done bool
	due                  time.Time
	failed               error
}

// begin stops, once, the redirection that an agent of another mode left when it
// ended, or this generation before it was restarted: its Envoy may be the same,
// and is about to lose that mode's listeners. An agent that lives has an Envoy of
// its own, and goes on until sweep.
func (s *sweeper) begin(ctx context.Context, place *handover.Place) error {
	if s.begun {
		return nil
	}
	s.begun = true
	if others, err := place.Others(); err != nil || !place.AfterOther() || others && !place.Changed() {
		return err
	}
	if err := place.Alone(func() error { return s.stop(ctx) }); err != nil {
		return fmt.Errorf("stop redirection of another mode: %w", err)
	}
	return nil
}

// again begins anew: another generation owned the kernel meanwhile.
func (s *sweeper) again() { s.stopped, s.done, s.due = false, false, time.Time{} }

// sweep does what can be done now. An older agent beside an Envoy that drains
// is let finish, and sweeps by itself when it ends.
func (s *sweeper) sweep(ctx context.Context, place *handover.Place) {
	if s.done || time.Now().Before(s.due) {
		return
	}
	if !s.always && !place.Unswept() {
		s.done = true
		return
	}
	err := s.try(ctx, place)
	if passing(err) {
		return
	}
	if err != nil {
		s.due = time.Now().Add(sweepInterval)
		if s.failed == nil || s.failed.Error() != err.Error() {
			s.log.Warn("what an agent of another mode left is not removed, its redirection ends by itself", zap.Error(err))
		}
	}
	s.failed = err
}

func (s *sweeper) try(ctx context.Context, place *handover.Place) error {
	if !s.stopped {
		if err := place.Hold(func() error { return s.stop(ctx) }); err != nil {
			return fmt.Errorf("stop its redirection: %w", err)
		}
		s.stopped = true
	}
	if others, err := place.Others(); others || err != nil {
		return err
	}
	if err := place.Hold(func() error { return s.clean(ctx) }); err != nil {
		return fmt.Errorf("remove its rules: %w", err)
	}
	if err := place.Swept(); err != nil {
		return err
	}
	s.done = true
	return nil
}

// last is the sweep of an agent that ends.
func (s *sweeper) last(ctx context.Context, place *handover.Place) {
	if s.due = (time.Time{}); !place.Mine() {
		return
	}
	s.sweep(ctx, place)
}

func (s *sweeper) leftover() string {
	if s.failed == nil {
		return ""
	}
	return s.failed.Error()
}
