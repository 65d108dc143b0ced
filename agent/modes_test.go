// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nodevoy/nodevoy/agent/envoyadmin"
	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// fakePodKernels is what is in the pods of a node, whoever put it there. It is the
// kernel of every generation in pod mode.
type fakePodKernels struct {
	mu sync.Mutex
	// rules are in the pods, and redirect them. denied is what a look inside
	// ends with.
	rules, redirecting bool
	denied             error
	sweeps             int
}

func (f *fakePodKernels) set(rules, redirecting bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules, f.redirecting = rules, redirecting
	return nil
}

func (f *fakePodKernels) has() (rules, redirecting bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rules, f.redirecting
}

func (f *fakePodKernels) Prepare(context.Context, *plan.Plan) error  { return nil }
func (f *fakePodKernels) Withdraw(context.Context, *plan.Plan) error { return nil }
func (f *fakePodKernels) Apply(context.Context, *plan.Plan) error    { return f.set(true, true) }
func (f *fakePodKernels) Refresh(context.Context) error              { return nil }
func (f *fakePodKernels) Forget()                                    {}

func (f *fakePodKernels) Disengage() error {
	rules, _ := f.has()
	return f.set(rules, false)
}

func (f *fakePodKernels) Drift(context.Context, *plan.Plan) ([]apply.Drift, error) {
	return nil, nil
}

func (f *fakePodKernels) Engaged() bool {
	_, redirecting := f.has()
	return redirecting
}

func (f *fakePodKernels) Cleanup(context.Context) error {
	f.mu.Lock()
	f.sweeps++
	denied := f.denied
	f.mu.Unlock()
	if denied != nil {
		return denied
	}
	return f.set(false, false)
}

// inMode starts a generation on the machine, with these kernels of its pods.
func (m *machine) inMode(t *testing.T, mode plan.Mode, podKernels *fakePodKernels, log *zap.Logger) *Agent {
	t.Helper()
	lease, err := handover.Acquire(m.shared, t.TempDir(), mode.String(), func(int) (bool, error) { return true, nil })
	if err != nil {
		t.Fatal(err)
	}
	host := func() *apply.Applier { return apply.NewWith(m.cfg, m.kernel, zap.NewNop()) }
	a := &Agent{state: &atomic.Pointer[State]{}, cfg: DefaultConfig(), log: zap.NewNop(), envoy: envoyadmin.New("/nonexistent")}
	a.cfg.CleanupOnExit = true
	other, kernel := handover.OtherMode{Stop: podKernels.Cleanup, Clean: podKernels.Cleanup}, handover.Kernel(host())
	if mode == plan.PodMode {
		kernel = podKernels
		other = handover.OtherMode{
			Always: true,
			Stop:   func(context.Context) error { return host().Disengage() },
			Clean:  func(ctx context.Context) error { return host().Cleanup(ctx) },
		}
	}
	a.kernel = handover.NewFence(kernel, lease, handover.NewSweeper(other, time.Now, log))
	return a
}

func (m *machine) apply(t *testing.T, a *Agent) {
	t.Helper()
	if err := a.kernel.Apply(t.Context(), m.plan()); err != nil {
		t.Fatal(err)
	}
}

// end has an agent told to stop.
func end(t *testing.T, a *Agent) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// crash ends an agent with nothing done.
func crash(t *testing.T, a *Agent) {
	t.Helper()
	if err := a.kernel.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPodModeTakesOverFromHostMode: the host redirects no more from then on, but
// keeps what connections to the older Envoy need until that generation ends,
// which removes it, and nothing of the newer one's.
func TestPodModeTakesOverFromHostMode(t *testing.T) {
	m, podKernels := newMachine(t), &fakePodKernels{}
	older := m.inMode(t, plan.HostMode, podKernels, zap.NewNop())
	m.apply(t, older)
	newer := m.inMode(t, plan.PodMode, podKernels, zap.NewNop())
	if err := newer.kernel.Prepare(t.Context(), m.plan()); err != nil || len(m.redirected(t)) == 0 {
		t.Fatalf("the older one is stopped before the newer one redirects: %v", err)
	}
	m.apply(t, newer)
	if len(m.redirected(t)) > 0 || m.clean(t) {
		t.Errorf("redirected on the host are %v, nothing left there: %v", m.redirected(t), m.clean(t))
	}
	if !older.kernel.Superseded() || older.kernel.Engaged() {
		t.Error("the older one goes on")
	}
	end(t, older)
	if rules, redirecting := podKernels.has(); !m.clean(t) || !rules || !redirecting {
		t.Errorf("after the older one the host is clean: %v, pods have rules: %v, redirected: %v", m.clean(t), rules, redirecting)
	}
	end(t, newer)
	if rules, _ := podKernels.has(); rules {
		t.Error("the newer one leaves rules in pods")
	}
}

// TestHostModeTakesOverFromPodMode is the other way about.
func TestHostModeTakesOverFromPodMode(t *testing.T) {
	m, podKernels := newMachine(t), &fakePodKernels{}
	older := m.inMode(t, plan.PodMode, podKernels, zap.NewNop())
	m.apply(t, older)
	newer := m.inMode(t, plan.HostMode, podKernels, zap.NewNop())
	m.apply(t, newer)
	if _, redirecting := podKernels.has(); redirecting || len(m.redirected(t)) == 0 {
		t.Errorf("pods are redirected inside: %v, on the host: %v", redirecting, m.redirected(t))
	}
	if err := podKernels.set(true, true); err != nil { // as if the newer one had not been permitted
		t.Fatal(err)
	}
	end(t, older)
	if rules, _ := podKernels.has(); rules || len(m.redirected(t)) == 0 {
		t.Errorf("after the older one pods have rules: %v, redirected on the host are %v", rules, m.redirected(t))
	}
	end(t, newer)
	if !m.clean(t) {
		t.Error("the newer one leaves rules on the host")
	}
}

// TestCrashedAgentOfTheOtherModeIsSweptAfter: all that it left is removed with the
// first Apply, and its redirection ends before Envoy is told anything.
func TestCrashedAgentOfTheOtherModeIsSweptAfter(t *testing.T) {
	m, podKernels := newMachine(t), &fakePodKernels{}
	first := m.inMode(t, plan.HostMode, podKernels, zap.NewNop())
	m.apply(t, first)
	crash(t, first)
	second := m.inMode(t, plan.PodMode, podKernels, zap.NewNop())
	if err := second.kernel.Prepare(t.Context(), m.plan()); err != nil || len(m.redirected(t)) > 0 || m.clean(t) {
		t.Errorf("before the first Apply: error %v, redirected %v, nothing left: %v", err, m.redirected(t), m.clean(t))
	}
	m.apply(t, second)
	if !m.clean(t) {
		t.Error("something is left on the host")
	}
	crash(t, second)
	third := m.inMode(t, plan.HostMode, podKernels, zap.NewNop())
	m.apply(t, third)
	if rules, _ := podKernels.has(); rules {
		t.Error("something is left in pods")
	}
	swept := podKernels.sweeps
	m.apply(t, third)
	if podKernels.sweeps != swept {
		t.Error("pods are looked into with each Apply")
	}
	crash(t, third)
	fourth := m.inMode(t, plan.HostMode, podKernels, zap.NewNop())
	m.apply(t, fourth)
	if podKernels.sweeps != swept {
		t.Error("pods are looked into after an agent of the same mode")
	}
	crash(t, fourth)
}

// TestOlderOneCrashesWhileSuperseded: what it could not remove itself is removed
// at a later check.
func TestOlderOneCrashesWhileSuperseded(t *testing.T) {
	m, podKernels := newMachine(t), &fakePodKernels{}
	older := m.inMode(t, plan.HostMode, podKernels, zap.NewNop())
	m.apply(t, older)
	newer := m.inMode(t, plan.PodMode, podKernels, zap.NewNop())
	m.apply(t, newer)
	crash(t, older)
	if _, err := newer.kernel.Drift(t.Context(), m.plan()); err != nil || !m.clean(t) {
		t.Errorf("the host is clean: %v, error %v", m.clean(t), err)
	}
	crash(t, newer)
}

// TestTakenBackFromTheOtherMode: an agent that had nothing left to sweep sweeps
// again after one of the other mode that took over and crashed.
func TestTakenBackFromTheOtherMode(t *testing.T) {
	m, podKernels := newMachine(t), &fakePodKernels{}
	older := m.inMode(t, plan.PodMode, podKernels, zap.NewNop())
	m.apply(t, older)
	newer := m.inMode(t, plan.HostMode, podKernels, zap.NewNop())
	m.apply(t, newer)
	crash(t, newer)
	if len(m.redirected(t)) == 0 {
		t.Fatal("the newer one left nothing behind; this test shows nothing")
	}
	m.apply(t, older)
	if _, redirecting := podKernels.has(); !redirecting || !m.clean(t) {
		t.Errorf("the older one redirects: %v, the host is clean: %v", redirecting, m.clean(t))
	}
	crash(t, older)
}

// TestSweepThatIsDenied: host mode needs no permission to enter pods. What it
// can't remove there it says, once, and it tries again now and then.
func TestSweepThatIsDenied(t *testing.T) {
	m, podKernels := newMachine(t), &fakePodKernels{}
	core, logs := observer.New(zap.WarnLevel)
	older := m.inMode(t, plan.PodMode, podKernels, zap.NewNop())
	m.apply(t, older)
	crash(t, older)
	newer := m.inMode(t, plan.HostMode, podKernels, zap.New(core))
	podKernels.denied = errors.New("not permitted")
	synctest.Test(t, func(t *testing.T) {
		m.apply(t, newer)
		if newer.kernel.Leftover() == "" || logs.Len() != 1 || len(m.redirected(t)) == 0 {
			t.Errorf("leftover %q, %d lines of log, redirected %v", newer.kernel.Leftover(), logs.Len(), m.redirected(t))
		}
		tries := podKernels.sweeps
		for range 10 {
			pass(driftInterval)
			m.apply(t, newer)
		}
		if n := podKernels.sweeps - tries; n != 0 || logs.Len() != 1 {
			t.Errorf("%d tries in 20 s, %d lines of log", n, logs.Len())
		}
		podKernels.denied = nil
		pass(handover.SweepInterval)
		m.apply(t, newer)
		if rules, _ := podKernels.has(); rules || newer.kernel.Leftover() != "" {
			t.Errorf("with permission pods have rules: %v, leftover %q", rules, newer.kernel.Leftover())
		}
	})
	crash(t, newer)
}

// TestEndBeforeTheSweep: an agent that ends before it has swept does so then.
func TestEndBeforeTheSweep(t *testing.T) {
	m, podKernels := newMachine(t), &fakePodKernels{}
	older := m.inMode(t, plan.PodMode, podKernels, zap.NewNop())
	m.apply(t, older)
	crash(t, older)
	newer := m.inMode(t, plan.HostMode, podKernels, zap.NewNop())
	podKernels.denied = errors.New("busy")
	m.apply(t, newer)
	podKernels.denied = nil
	end(t, newer)
	if rules, _ := podKernels.has(); rules || !m.clean(t) {
		t.Errorf("pods have rules: %v, the host is clean: %v", rules, m.clean(t))
	}
}
