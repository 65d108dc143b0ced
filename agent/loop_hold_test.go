// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodevoy/nodevoy/agent/handover"
)

// TestRemovalIsHeldBack: while the kernel may redirect to a Service that is gone,
// Envoy serves it; what is new it is given at once.
func TestRemovalIsHeldBack(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		old, added := netip.MustParseAddrPort("10.96.0.10:80"), netip.MustParseAddrPort("10.96.0.11:80")
		b.mu.Lock()
		b.withdrawErr = errors.New("no memory")
		moved := b.inputs.Services[0].DeepCopy()
		moved.Spec.ClusterIP, moved.Spec.ClusterIPs = "10.96.0.11", []string{"10.96.0.11"}
		b.inputs.Services = []*corev1.Service{moved}
		b.mu.Unlock()
		b.change()
		pass(10 * time.Second)
		if !b.serves(old) || !b.serves(added) {
			t.Errorf("while the kernel can't be changed, Envoy serves what is gone: %v, what is new: %v", b.serves(old), b.serves(added))
		}
		if n := counted(b.took())["withdraw"]; n < 9 || n > 12 {
			t.Errorf("%d tries in 10 s", n)
		}
		if why := b.state().ready(time.Now(), time.Minute); why != "no memory" {
			t.Errorf("meanwhile not ready because %q", why)
		}
		b.mu.Lock()
		b.withdrawErr = nil
		b.mu.Unlock()
		pass(2 * retryInterval)
		if b.serves(old) || !b.serves(added) {
			t.Errorf("once it was withdrawn, Envoy serves what is gone: %v, what is new: %v", b.serves(old), b.serves(added))
		}
		if why := b.state().ready(time.Now(), time.Minute); why != "" {
			t.Errorf("once it was withdrawn, not ready because %q", why)
		}
		b.took()
		pass(10 * time.Second)
		if n := counted(b.took()); n["withdraw"]+n["publish"] > 0 {
			t.Errorf("with nothing to do the loop did %v", n)
		}
	})
}

// TestReadyFollowsEachStep: a step that failed is no reason any more once it has
// succeeded, and goes on being one though others succeed.
func TestReadyFollowsEachStep(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.mu.Lock()
		b.prepareErr = errors.New("no memory")
		b.mu.Unlock()
		b.change()
		pass(10 * time.Second)
		if s := b.state(); s.Phase != PhaseRedirecting || s.ready(time.Now(), time.Minute) != "no memory" {
			t.Errorf("phase %s, not ready because %q", s.Phase, s.ready(time.Now(), time.Minute))
		}
		b.mu.Lock()
		b.prepareErr = nil
		b.mu.Unlock()
		pass(2 * retryInterval)
		if why := b.state().ready(time.Now(), time.Minute); why != "" {
			t.Errorf("once it has succeeded, not ready because %q", why)
		}
	})
}

// TestOtherModeHoldsUpEnvoy: while an agent of the other mode that has ended
// redirects to listeners that the first publication would take away, there is
// none; its redirection ends by itself after the switch's timeout.
func TestOtherModeHoldsUpEnvoy(t *testing.T) {
	for name, mended := range map[string]bool{"stopped at last": true, "never stopped": false} {
		t.Run(name, func(t *testing.T) {
			withPreparedFixture(t, func(b *fixture) { b.prepareErr = fmt.Errorf("%w: busy", handover.ErrOtherMode) }, func(t *testing.T, b *fixture) {
				b.change()
				b.connect()
				pass(b.loop.cfg.Redirect.Timeout - 2*time.Second)
				if n := counted(b.took()); n["publish"]+n["apply"] > 0 || n["prepare"] < 5 {
					t.Errorf("before that the loop did %v", n)
				}
				if mended {
					b.mu.Lock()
					b.prepareErr = nil
					b.mu.Unlock()
					pass(1500 * time.Millisecond)
				} else {
					pass(4 * time.Second)
				}
				if n := counted(b.took()); n["publish"] != 1 || n["apply"] < 1 {
					t.Errorf("then the loop did %v", n)
				}
			})
		})
	}
}

// TestEarlierRedirectionIsAdopted: one try that fails doesn't tell that the Envoy
// of an earlier agent is gone; several do, and that nobody listens does at once.
func TestEarlierRedirectionIsAdopted(t *testing.T) {
	lost := errors.New("lost")
	for name, c := range map[string]struct {
		first, later error
		soon, atLast int // how often redirection is stopped
	}{
		"it answers":           {},
		"it answers no more":   {later: lost, atLast: 1},
		"one try is lost":      {first: lost},
		"it never answers":     {first: lost, later: lost, atLast: 1},
		"nobody listens there": {first: fmt.Errorf("dial: %w", unix.ECONNREFUSED), later: lost, soon: 1, atLast: 1},
	} {
		t.Run(name, func(t *testing.T) {
			withPreparedFixture(t, func(b *fixture) { b.probeErr = c.first }, func(t *testing.T, b *fixture) {
				b.change()
				pass(probeInterval / 2)
				if n := counted(b.took())["disengage"]; n != c.soon {
					t.Errorf("after one try stopped %d times, want %d", n, c.soon)
				}
				b.probeSays(c.later)
				pass(time.Minute)
				if n := c.soon + counted(b.took())["disengage"]; n != c.atLast {
					t.Errorf("at last stopped %d times, want %d", n, c.atLast)
				}
			})
		})
	}
}
