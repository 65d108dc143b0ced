// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/xds/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// faults are what the fixture's source and kernel can't do.
type faults struct {
	leftover  string
	ownership error
	problems  []model.Problem
}

func (b *fixture) fault() faults {
	if f := b.faults.Load(); f != nil {
		return *f
	}
	return faults{}
}

func (k fakeKernel) Leftover() string          { return k.fault().leftover }
func (k fakeKernel) OwnershipErr() error       { return k.fault().ownership }
func (s fakeSource) Problems() []model.Problem { return s.fault().problems }

// TestWhatCantBeToldIsShown: what the kernel and the source can't tell or do is in
// status and, where the rules may not hold, makes the node unready, for as long.
func TestWhatCantBeToldIsShown(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		check := func(what, ready, checkErr, leftover string, problems ...string) {
			t.Helper()
			pass(2 * driftInterval)
			s := b.state()
			if got := s.ready(time.Now(), time.Minute); got != ready {
				t.Errorf("%s: not ready because %q, want %q", what, got, ready)
			}
			v := s.shown(false)
			if v.Redirect.CheckError != checkErr || v.Redirect.Leftover != leftover || !slices.Equal(v.Problems, problems) {
				t.Errorf("%s: status shows %q, %q, %q", what, v.Redirect.CheckError, v.Redirect.Leftover, v.Problems)
			}
		}
		const head = "can't tell whether rules are in place: "
		driftSays := func(err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.driftErr = err
		}
		check("all is well", "", "", "")
		driftSays(errors.New("busy"))
		check("rules can't be checked", head+"busy", "busy", "")
		driftSays(nil)
		check("rules can be checked", "", "", "")
		b.faults.Store(&faults{ownership: errors.New("no owner's file")})
		check("no owner can be read", head+"no owner's file", "no owner's file", "")
		b.faults.Store(&faults{leftover: "not permitted"})
		check("something is left", "", "", "not permitted")
		b.faults.Store(&faults{problems: []model.Problem{{Kind: "Service", Detail: "can't be followed"}}})
		check("a kind can't be followed", "", "", "", "Service: can't be followed")
		b.faults.Store(nil)
		check("all is well again", "", "", "")
	})
}

// probeSays sets what Envoy's listener answers from now on.
func (b *fixture) probeSays(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probeErr = err
}

// applySays sets what becomes of applying from now on.
func (b *fixture) applySays(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.applyErr = err
}

// slowly makes Envoy take this long for each answer. What is published while it
// is busy is sent after that.
func (b *fixture) slowly(latency time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.latency = latency
}

// send is a publication on its way to a slow Envoy. The caller holds the lock.
func (b *fixture) send() {
	if b.latency == 0 {
		return
	}
	b.status.Settled = false
	if b.busy {
		b.more = true
		return
	}
	b.busy = true
	time.AfterFunc(b.latency, b.answered)
}

func (b *fixture) answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = false
	if b.more {
		b.more = false
		b.send()
		return
	}
	b.status.Settled = true
	select {
	case b.envoy <- struct{}{}:
	default:
	}
}

// TestBadAnswerAtRenewal: the switch must not run out because each time it was
// to be renewed one request had just got lost.
func TestBadAnswerAtRenewal(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		renewals := 0
		for range 60 {
			// One bad answer, then one good, again and again.
			b.probeSays(errors.New("lost"))
			pass(probeInterval)
			b.probeSays(nil)
			pass(probeInterval)
			for _, did := range b.took() {
				if did == "refresh" {
					renewals++
				}
			}
		}
		if renewals < 11 {
			t.Errorf("%d renewals in 2 minutes, want 12 at a timeout of 30 s", renewals)
		}
	})
}

// TestEndOfStreamIsCounted: Envoy's end stops redirection past the loop, and is
// told and counted all the same; so is the return.
func TestEndOfStreamIsCounted(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.loop.envoyGone()
		b.set(server.Status{})
		if got := b.took(); !slices.Contains(got, "disengage") {
			t.Errorf("the loop did %q", got)
		}
		if n := testutil.ToFloat64(b.loop.metrics.stopped); n != 1 {
			t.Errorf("counted %v times, want once", n)
		}
		b.loop.envoyGone()
		if n := testutil.ToFloat64(b.loop.metrics.stopped); n != 1 {
			t.Errorf("an end with nothing redirected was counted: %v", n)
		}
		b.connect()
		pass(2 * time.Second)
		for message, want := range map[string]int{"redirection stopped": 1, "redirecting": 2} {
			if got := b.logs.FilterMessage(message).Len(); got != want {
				t.Errorf("%q was logged %d times, want %d", message, got, want)
			}
		}
	})
}

// TestConstantChangeIsApplied: where each change is published before Envoy has
// answered the one before, what is new still gets into the kernel.
func TestConstantChangeIsApplied(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.slowly(60 * time.Millisecond)
		for range 100 {
			b.change()
			pass(25 * time.Millisecond)
		}
		applied, published := 0, 0
		for _, did := range b.took() {
			switch did {
			case "apply":
				applied++
			case "publish":
				published++
			}
		}
		if applied < 10 || published < 10 {
			t.Errorf("100 changes in 2.5 s: %d published, %d applied", published, applied)
		}
	})
}

// TestSilentEnvoyHoldsChangesBriefly: an Envoy that does not answer holds up
// nobody's removal for long.
func TestSilentEnvoyHoldsChangesBriefly(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.slowly(time.Hour)
		b.change()
		pass(100 * time.Millisecond)
		b.took()
		b.change()
		pass(answerPatience + 100*time.Millisecond)
		if got := b.took(); !slices.Contains(got, "withdraw") {
			t.Errorf("the loop did %q", got)
		}
	})
}

// TestFailedApplyIsNotTriedAtEveryEvent: each try may start programs.
func TestFailedApplyIsNotTriedAtEveryEvent(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.applySays(errors.New("no room"))
		b.change()
		pass(100 * time.Millisecond)
		b.took()
		for range 100 {
			b.connect()
			pass(10 * time.Millisecond)
		}
		if n := len(b.took()); n < 1 || n > 2 {
			t.Errorf("%d tries in a second, want 1 or 2", n)
		}
		if got := b.logs.FilterMessage("plan not applied").Len(); got != 1 {
			t.Errorf("the same error was logged %d times, want once", got)
		}
	})
}

// TestOneFamilyUnreadable: what is found in one family is mended while the
// other can't be read, which is told once.
func TestOneFamilyUnreadable(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.mu.Lock()
		b.drift = []apply.Drift{{Kind: apply.DriftJump, Name: "IPv4 nat PREROUTING"}}
		b.driftErr = errors.New("list IPv6 nat PREROUTING: broken")
		b.mu.Unlock()
		pass(10 * driftInterval)
		if got := b.took(); !slices.Contains(got, "apply") {
			t.Errorf("after drift the loop did %q", got)
		}
		if got := b.logs.FilterMessage("rules not checked").Len(); got != 1 {
			t.Errorf("the same error was logged %d times, want once", got)
		}
	})
}

// TestSupersededStandsBy: for as long as a newer agent works this one is ready
// and not stuck, whatever changes; when that one is gone it takes back.
func TestSupersededStandsBy(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.mu.Lock()
		b.applyErr, b.engaged = handover.ErrSuperseded, false
		b.mu.Unlock()
		b.change()
		pass(10 * time.Minute)
		s := b.state()
		if s.Phase != PhaseSuperseded || s.ready(time.Now(), time.Minute) != "" || s.stuck(time.Now(), time.Minute) != "" {
			t.Errorf("phase %q, not ready %q, stuck %q", s.Phase, s.ready(time.Now(), time.Minute), s.stuck(time.Now(), time.Minute))
		}
		b.applySays(nil)
		pass(2 * time.Second)
		if s := b.state(); s.Phase != PhaseRedirecting {
			t.Errorf("phase %q after the newer agent is gone", s.Phase)
		}
	})
}

// TestDrainingEnvoyIsResumed: what an earlier agent told Envoy is taken back
// before anything is redirected to it.
func TestDrainingEnvoyIsResumed(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		resumed := 0
		b.loop.resume = func(context.Context) error {
			resumed++
			if diary := b.took(); slices.Contains(diary, "apply") {
				t.Errorf("resumed after %q", diary)
			}
			return nil
		}
		b.redirecting(t)
		if resumed != 1 {
			t.Errorf("resumed %d times, want once", resumed)
		}
	})
}

// TestDeafEnvoyIsNoReasonToRestart: what Envoy doesn't answer is shown, and the
// agent, which would only take the redirection of other pods along, goes on.
func TestDeafEnvoyIsNoReasonToRestart(t *testing.T) {
	for name, st := range map[string]server.Status{
		"answers nothing":      {Connected: true, ListenersAcked: true},
		"refuses listeners":    {Connected: true, Settled: true},
		"is not there":         {},
		"has no working probe": {Connected: true, ListenersAcked: true, Settled: true},
	} {
		t.Run(name, func(t *testing.T) {
			withFixture(t, func(t *testing.T, b *fixture) {
				b.redirecting(t)
				if name == "has no working probe" {
					b.probeSays(errors.New("no answer"))
					pass((probeFailures + 1) * probeInterval)
				}
				b.set(st)
				b.change()
				pass(10 * time.Minute)
				s := b.state()
				if why := s.stuck(time.Now(), b.loop.cfg.StuckAfter); why != "" {
					t.Errorf("live fails: %s", why)
				}
				if why := s.ready(time.Now(), b.loop.cfg.StuckAfter); !strings.Contains(why, "Envoy") {
					t.Errorf("ready says %q", why)
				}
				if age := s.pending(time.Now()); age < 9*time.Minute {
					t.Errorf("the change is %s old", age)
				}
			})
		})
	}
}

// TestPendingIsComputedWhenScraped: a loop that hangs sets no gauge.
func TestPendingIsComputedWhenScraped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := &atomic.Pointer[State]{}
		scrape := func() float64 { return gaugeOf(t, state, "nodevoy_pending_changes_seconds", "") }
		if v := scrape(); v != 0 {
			t.Errorf("before the first round: %v", v)
		}
		state.Store(&State{At: time.Now()})
		pass(time.Second)
		if v := scrape(); v != 0 {
			t.Errorf("a second after the last turn, with nothing to do: %v", v)
		}
		pass(time.Minute)
		if v := scrape(); v != 61 {
			t.Errorf("a loop that hung for 61 s: %v", v)
		}
		state.Store(&State{At: time.Now(), PendingSince: time.Now()})
		pass(5 * time.Second)
		if v := scrape(); v != 5 {
			t.Errorf("a change that has waited for 5 s: %v", v)
		}
	})
}

func TestSupersededIsNoFault(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.applyErr = handover.ErrSuperseded
		b.change()
		b.connect()
		pass(5 * time.Second)
		if s := b.state(); s.Phase != PhaseSuperseded || s.ApplyErr != "" {
			t.Errorf("phase %q, error %q", s.Phase, s.ApplyErr)
		}
	})
}
