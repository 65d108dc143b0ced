// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"testing"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/redirect"
)

// leave gives a place up.
func leave(t *testing.T, p *handover.Place) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// TestSweepBegins: what an agent of another mode left redirecting is stopped
// before anything else when that agent is gone, and not while it lives.
func TestSweepBegins(t *testing.T) {
	for name, c := range map[string]struct {
		before redirect.Mode // of the last owner; none if empty
		lives  bool
		want   int
	}{
		"nobody was here":             {},
		"the same mode":               {before: redirect.PodMode},
		"another mode, still alive":   {before: redirect.HostMode, lives: true},
		"another mode, which is gone": {before: redirect.HostMode, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			shared := t.TempDir()
			place := func(mode redirect.Mode) *handover.Place {
				p, err := handover.Join(shared, t.TempDir(), mode.String(), func(int) bool { return true })
				if err != nil {
					t.Fatal(err)
				}
				return p
			}
			if c.before != "" {
				before := place(c.before)
				if err := before.Take(func() error { return nil }); err != nil {
					t.Fatal(err)
				}
				if c.lives {
					t.Cleanup(func() { leave(t, before) })
				} else if err := before.Close(); err != nil {
					t.Fatal(err)
				}
			}
			mine := place(redirect.PodMode)
			t.Cleanup(func() { leave(t, mine) })
			stops := 0
			s := &sweeper{log: zap.NewNop(), clean: nothing, stop: func(context.Context) error { stops++; return nil }}
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
