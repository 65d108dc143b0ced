// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"
)

func nothing(context.Context) error { return nil }

// TestSweepBegins: what an agent of another mode left redirecting is stopped
// before anything else when that agent is gone, and not while it lives.
func TestSweepBegins(t *testing.T) {
	for name, c := range map[string]struct {
		before string // of the last owner; none if empty
		lives  bool
		want   int
	}{
		"nobody was here":             {},
		"the same mode":               {before: podMode},
		"another mode, still alive":   {before: HostMode, lives: true},
		"another mode, which is gone": {before: HostMode, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			shared := t.TempDir()
			if c.before != "" {
				before := acquireAs(t, c.before, shared, t.TempDir())
				took(t, before.TakeOver)
				if c.lives {
					t.Cleanup(func() { closeLease(t, before) })
				} else if err := before.Close(); err != nil {
					t.Fatal(err)
				}
			}
			mine := acquireAs(t, podMode, shared, t.TempDir())
			t.Cleanup(func() { closeLease(t, mine) })
			stops := 0
			s := NewSweeper(OtherMode{Clean: nothing, Stop: func(context.Context) error { stops++; return nil }}, time.Now, zap.NewNop())
			for range 2 {
				if err := s.begin(t.Context(), mine); err != nil {
					t.Fatal(err)
				}
			}
			if stops != c.want {
				t.Errorf("stopped %d times, want %d", stops, c.want)
			}
		})
	}
}

// TestStopThatFailedIsTriedAgain: redirection to listeners that are about to go
// must end, also when the first try finds the kernel busy.
func TestStopThatFailedIsTriedAgain(t *testing.T) {
	shared := t.TempDir()
	before := acquireAs(t, HostMode, shared, t.TempDir())
	took(t, before.TakeOver)
	closeLease(t, before)
	mine := acquireAs(t, podMode, shared, t.TempDir())
	t.Cleanup(func() { closeLease(t, mine) })
	stops, busy := 0, errors.New("busy")
	s := NewSweeper(OtherMode{Clean: nothing, Stop: func(context.Context) error {
		if stops++; stops == 1 {
			return busy
		}
		return nil
	}}, time.Now, zap.NewNop())
	if err := s.begin(t.Context(), mine); !errors.Is(err, busy) {
		t.Errorf("a stop that failed: %v", err)
	}
	for range 2 {
		if err := s.begin(t.Context(), mine); err != nil {
			t.Error(err)
		}
	}
	if stops != 2 {
		t.Errorf("%d tries, want 2", stops)
	}
}
