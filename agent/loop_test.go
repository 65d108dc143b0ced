// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nodevoy/nodevoy/agent/budget"
	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/xds/server"
)

// fixture is the loop between a source, an Envoy and a kernel that the test
// moves. Its diary holds what the loop did, in order.
type fixture struct {
	mu       sync.Mutex
	diary    []string
	inputs   model.Inputs
	status   server.Status
	engaged  bool
	applyErr error
	// plan is the last that the kernel was given.
	plan *plan.Plan
	// prepareErr and withdrawErr are what becomes of these steps.
	prepareErr, withdrawErr error
	refresh                 error
	drift                   []apply.Drift
	driftErr                error
	probeErr                error
	changed                 chan struct{}
	envoy                   chan struct{}
	published               *model.Node
	// publications counts them.
	publications int
	targets      []model.PodTarget
	loop         *loop
	logs         *observer.ObservedLogs
	faults       atomic.Pointer[faults]
	// uses and denied are Envoy's, connections those through it, unless they can't be
	// listed.
	uses           []server.Use
	denied         []netip.AddrPort
	connections    []netip.AddrPort
	connectionsErr error
	// seen is what Envoy has seen.
	seen map[netip.AddrPort]model.Seen
	// samples counts how often connections were listed.
	samples int
	// latency is Envoy's; busy and more are for its answers. See slowly.
	latency    time.Duration
	busy, more bool
}

// planned is the last plan that the kernel was given.
func (b *fixture) planned() *plan.Plan {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.plan
}

// serves says whether Envoy was last given the frontend at this address.
func (b *fixture) serves(addr netip.AddrPort) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.published.Frontend(addr)
	return ok && f.Bypass == ""
}

// rounds counts the rounds so far: each takes a millisecond.
func (b *fixture) rounds() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.publications
}

func (b *fixture) note(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.diary = append(b.diary, s)
}

// took returns the diary so far and starts a new one.
func (b *fixture) took() []string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.diary
	b.diary = nil
	return d
}

type fakeSource struct{ *fixture }

func (s fakeSource) Changed() <-chan struct{} { return s.changed }
func (s fakeSource) Inputs() model.Inputs {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inputs
}

type fakeKernel struct{ *fixture }

func (k fakeKernel) Prepare(context.Context, *plan.Plan) error {
	k.note("prepare")
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.prepareErr
}

func (k fakeKernel) Withdraw(_ context.Context, desired *plan.Plan) error {
	k.note("withdraw")
	k.mu.Lock()
	defer k.mu.Unlock()
	k.plan = desired
	return k.withdrawErr
}

func (k fakeKernel) Apply(context.Context, *plan.Plan) error {
	k.note("apply")
	k.mu.Lock()
	defer k.mu.Unlock()
	k.engaged = k.applyErr == nil || errors.Is(k.applyErr, pods.ErrPartial)
	return k.applyErr
}

func (k fakeKernel) Disengage() error {
	k.note("disengage")
	k.mu.Lock()
	defer k.mu.Unlock()
	k.engaged = false
	return nil
}

func (k fakeKernel) Refresh(context.Context) error { k.note("refresh"); return k.refresh }

func (k fakeKernel) Drift(context.Context, *plan.Plan) ([]apply.Drift, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.drift
	k.drift = nil
	return d, k.driftErr
}

func (k fakeKernel) Superseded() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return errors.Is(k.applyErr, handover.ErrSuperseded)
}

func (k fakeKernel) Engaged() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.engaged
}

// withFixture runs f beside a running loop, in a bubble of its own time.
func withFixture(t *testing.T, f func(t *testing.T, b *fixture)) {
	t.Helper()
	withPreparedFixture(t, func(*fixture) {}, f)
}

// withPreparedFixture is withFixture with a loop that is changed before it starts.
func withPreparedFixture(t *testing.T, prepare func(*fixture), f func(t *testing.T, b *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		b := &fixture{logs: logs, changed: make(chan struct{}, 1), envoy: make(chan struct{}, 1), inputs: oneService()}
		cfg := DefaultConfig()
		cfg.NodeName = "node-a"
		b.loop = &loop{
			cfg: cfg.Resolved(), source: fakeSource{b}, envoy: fakeEnvoy{b}, kernel: fakeKernel{b},
			reporter: &reporter{log: zap.New(core), state: &atomic.Pointer[State]{}},
			cpu:      func() time.Duration { return time.Duration(b.rounds()) * time.Millisecond },
			proof: proof{prober: &prober{results: make(chan probeResult), kicked: make(chan struct{}, 1), try: func(context.Context) error {
				b.mu.Lock()
				defer b.mu.Unlock()
				return b.probeErr
			}}},
		}
		b.loop.leaving = leaving{sampler: newSampler(b.list), ledger: &budget.Ledger{}}
		b.loop.metrics = newMetrics(prometheus.NewRegistry(), b.loop.state)
		prepare(b)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, run := range []runner{b.loop.run, b.loop.proof.prober.run, b.loop.leaving.sampler.run} {
			wg.Go(func() {
				if err := run(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		f(t, b)
		cancel()
		wg.Wait()
	})
}

// pass lets time pass, in the bubble's own.
func pass(d time.Duration) { time.Sleep(d) }

func (b *fixture) change() { b.changed <- struct{}{} }

// set changes Envoy's status and wakes the loop.
func (b *fixture) set(st server.Status) {
	b.mu.Lock()
	b.status = st
	b.mu.Unlock()
	b.envoy <- struct{}{}
}

// connect is an Envoy that has accepted everything.
func (b *fixture) connect() {
	b.set(server.Status{Connected: true, Since: time.Now(), ListenersAcked: true, Settled: true})
}

func (b *fixture) state() *State { synctest.Wait(); return b.loop.state.Load() }

// redirecting brings the loop to where it redirects.
func (b *fixture) redirecting(t *testing.T) {
	t.Helper()
	b.change()
	b.connect()
	time.Sleep(2 * time.Second)
	if s := b.state(); s == nil || s.Phase != PhaseRedirecting {
		t.Fatalf("state is %+v, want redirecting", s)
	}
	b.took()
}

func TestOrderOfARound(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.change()
		time.Sleep(time.Second / 2)
		want := []string{"prepare", "withdraw", "publish"}
		if diff := cmp.Diff(want, b.took()); diff != "" {
			t.Errorf("without an Envoy (-want +got):\n%s", diff)
		}
		if s := b.state(); s.Phase != PhaseWaiting || s.Reason != "no Envoy is connected" {
			t.Errorf("phase %q because %q", s.Phase, s.Reason)
		}
		b.connect()
		if diff := cmp.Diff([]string{"apply"}, b.took()); diff != "" {
			t.Errorf("with an Envoy (-want +got):\n%s", diff)
		}
		if s := b.state(); s.Phase != PhaseRedirecting || s.Applied.IsZero() || !s.PendingSince.IsZero() || s.ready(time.Now(), time.Minute) != "" {
			t.Errorf("state after apply: %+v", s)
		}
		if _, ok := b.published.Frontend(netip.MustParseAddrPort("10.96.0.10:80")); !ok {
			t.Error("the Service's frontend was not published")
		}
	})
}

func TestChangesShareARound(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		for range 5 {
			b.change()
			time.Sleep(time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		if diff := cmp.Diff([]string{"prepare", "withdraw", "publish", "apply"}, b.took()); diff != "" {
			t.Errorf("five changes at once (-want +got):\n%s", diff)
		}
	})
}

func TestNothingIsAppliedBeforeEnvoyAnswered(t *testing.T) {
	for name, st := range map[string]server.Status{
		"listeners not accepted": {Connected: true},
		"responses unanswered":   {Connected: true, ListenersAcked: true, Pending: 1},
	} {
		t.Run(name, func(t *testing.T) {
			withFixture(t, func(t *testing.T, b *fixture) {
				b.change()
				b.set(st)
				time.Sleep(5 * time.Second)
				if got := b.took(); slices.Contains(got, "apply") || slices.Contains(got, "refresh") {
					t.Errorf("the loop did %q", got)
				}
			})
		})
	}
}

func TestDeafListenerEndsRedirection(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.mu.Lock()
		b.probeErr = errors.New("no answer")
		b.mu.Unlock()
		time.Sleep((probeFailures - 1) * probeInterval)
		if got := b.took(); slices.Contains(got, "disengage") {
			t.Errorf("one bad answer ended redirection: %q", got)
		}
		time.Sleep(2 * probeInterval)
		if got := b.took(); !slices.Contains(got, "disengage") {
			t.Errorf("a deaf listener did not end redirection: %q", got)
		}
		time.Sleep(time.Minute)
		// The address may be what is missing, and is all that may be touched.
		if got := b.took(); len(got) == 0 || slices.ContainsFunc(got, func(s string) bool { return s != "prepare" }) {
			t.Errorf("with a deaf listener the loop did %q", got)
		}
		b.mu.Lock()
		b.probeErr = nil
		b.mu.Unlock()
		time.Sleep(2 * probeInterval)
		if got := b.took(); !slices.Contains(got, "apply") {
			t.Errorf("the listener answers again, and the loop did %q", got)
		}
	})
}

func TestSwitchIsRenewedOnlyWithProof(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		time.Sleep(31 * time.Second)
		if n := len(b.took()); n < 3 {
			t.Errorf("%d renewals in 31 s, want 3 at a timeout of 30 s", n)
		}
		b.set(server.Status{})
		time.Sleep(31 * time.Second)
		if got := b.took(); len(got) > 0 {
			t.Errorf("without an Envoy the loop did %q", got)
		}
	})
}

func TestDriftIsRepaired(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.mu.Lock()
		b.drift = []apply.Drift{{Kind: "chain", Name: "NODEVOY-PREROUTING"}}
		b.mu.Unlock()
		time.Sleep(driftInterval + time.Second)
		if got := b.took(); !slices.Contains(got, "apply") {
			t.Errorf("after drift the loop did %q", got)
		}
		if s := b.state(); s.DriftRepaired != 1 {
			t.Errorf("drift counted %d times", s.DriftRepaired)
		}
	})
}

func TestFailedApplyIsTriedAgainAndShown(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.applyErr = errors.New("no room")
		b.change()
		b.connect()
		time.Sleep(5 * time.Second)
		s := b.state()
		if s.ApplyErr != "no room" || s.ready(time.Now(), time.Minute) == "" || s.PendingSince.IsZero() {
			t.Errorf("state after a failed apply: %+v", s)
		}
		time.Sleep(b.loop.cfg.StuckAfter)
		if s := b.state(); s.stuck(time.Now(), b.loop.cfg.StuckAfter) != "" {
			t.Error("the agent would be restarted because the kernel takes no rules")
		}
		b.mu.Lock()
		b.applyErr = nil
		b.mu.Unlock()
		time.Sleep(2 * retryInterval)
		if s := b.state(); s.ApplyErr != "" || s.Phase != PhaseRedirecting || s.ready(time.Now(), time.Minute) != "" {
			t.Errorf("state after recovery: %+v", s)
		}
	})
}
