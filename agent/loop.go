// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect"
	"github.com/nodevoy/nodevoy/xds"
)

// source is where Kubernetes objects come from: an API server or a directory.
type source interface {
	// Changed fires when Inputs is worth reading again, first when every kind
	// of object has been read once.
	Changed() <-chan struct{}
	Inputs() model.Inputs
	Problems() []model.Problem
}

// configurator hands a node's view to Envoy.
type configurator interface {
	Publish(node *model.Node)
	Changed() <-chan struct{}
	Status() xds.Status
}

// redirector puts a plan into the kernel. See redirect.Applier.
type redirector interface {
	Prepare(ctx context.Context, plan *redirect.Plan) error
	Withdraw(ctx context.Context, plan *redirect.Plan) error
	Apply(ctx context.Context, plan *redirect.Plan) error
	Release() error
	Refresh(ctx context.Context) error
	Drift(ctx context.Context, plan *redirect.Plan) ([]redirect.Drift, error)
	Engaged() bool
}

// The loop's clocks.
const (
	// driftInterval leaves time for the repair within the promised 5 s.
	driftInterval = 2 * time.Second
	// retryInterval is the pause after a failed apply.
	retryInterval = time.Second
	// probeFailures in a row, one a second, end redirection: a hung Envoy is
	// left well before the dead man's switch would.
	probeFailures = 3
)

// loop turns changes into rounds: build, publish, compile, apply. It is the
// only goroutine that writes to the redirector, but for the release that the
// end of Envoy's stream triggers.
type loop struct {
	cfg      Config
	findings redirect.Findings
	source   source
	envoy    configurator
	kernel   redirector
	prober   *prober
	metrics  *metrics
	log      *zap.Logger
	state    *atomic.Pointer[State]
	// tell says to the owner of an object what is wrong with it; may be nil.
	tell func(model.Problem)
	told map[model.Problem]bool

	node *model.Node
	plan *redirect.Plan
	// unapplied is set from a change until the kernel holds the plan.
	unapplied bool
	// superseded is set while a newer agent on this node owns the rules.
	superseded   bool
	pendingSince time.Time
	applied      time.Time
	applyErr     error
	drift        int
	probed       probeResult
	failures     int
	nacks        int
}

// run works until ctx ends. It returns nil then, and never otherwise: what
// goes wrong in a round is logged, counted, shown and tried again.
func (l *loop) run(ctx context.Context) error {
	refresh := time.NewTicker(l.cfg.Redirect.Timeout / 3)
	defer refresh.Stop()
	drift := time.NewTicker(driftInterval)
	defer drift.Stop()
	retry := time.NewTicker(retryInterval)
	defer retry.Stop()
	var debounce <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.source.Changed():
			if l.pendingSince.IsZero() {
				l.pendingSince = time.Now()
			}
			if debounce == nil {
				debounce = time.After(l.cfg.Debounce)
			}
			continue
		case <-debounce:
			debounce = nil
			l.rebuild(ctx)
		case <-l.envoy.Changed():
			l.noteNacks()
		case r := <-l.prober.results:
			l.noteProbe(r)
		case <-refresh.C:
			l.refresh(ctx)
		case <-drift.C:
			l.checkDrift(ctx)
		case <-retry.C:
		}
		l.advance(ctx)
		l.publishState()
	}
}

// rebuild makes the node's view anew, takes out of the kernel what is no more,
// and hands the rest to Envoy. What is new enters the kernel in advance, once
// Envoy has it.
func (l *loop) rebuild(ctx context.Context) {
	first := l.plan == nil
	done := l.metrics.stage("build")
	l.node = model.Build(l.source.Inputs(), l.cfg.Model)
	l.plan = redirect.Compile(l.node, l.cfg.Redirect)
	done(nil)
	l.tellProblems()
	l.unapplied = true
	if err := l.timed(ctx, "prepare", l.kernel.Prepare); err != nil {
		l.applyErr = err
		l.log.Error("kernel not prepared", zap.Error(err))
	}
	if first {
		l.adopt()
	}
	if err := l.timed(ctx, "withdraw", l.kernel.Withdraw); serious(err) != nil {
		l.applyErr = err
		l.log.Error("stale members not withdrawn", zap.Error(err))
	}
	done = l.metrics.stage("publish")
	l.envoy.Publish(l.node)
	done(nil)
	l.metrics.observeNode(l.node)
}

// tellProblems passes on the problems that the last round did not have.
func (l *loop) tellProblems() {
	now := make(map[model.Problem]bool, len(l.node.Problems))
	for _, p := range l.node.Problems {
		now[p] = true
		if l.told[p] {
			continue
		}
		l.log.Warn("object can't be used as written", zap.String("kind", p.Kind), zap.String("namespace", p.Namespace),
			zap.String("name", p.Name), zap.String("field", p.Field), zap.String("detail", p.Detail))
		if l.tell != nil {
			l.tell(p)
		}
	}
	l.told = now
}

// adopt decides about what an earlier agent left in the kernel: it stays while
// its Envoy answers, and stops redirecting at once when none does.
func (l *loop) adopt() {
	if err := l.prober.try(); err != nil {
		l.log.Info("no envoy answers yet", zap.Error(err))
		l.release("no Envoy answers")
	}
}

// advance applies the plan when it is due and Envoy is ready for it.
func (l *loop) advance(ctx context.Context) {
	if l.plan == nil {
		return
	}
	if !l.unapplied && l.kernel.Engaged() {
		return
	}
	if why := l.blocked(); why != "" {
		return
	}
	err := l.timed(ctx, "apply", l.kernel.Apply)
	if passing(err) {
		return
	}
	if err != nil {
		if l.applyErr == nil || l.applyErr.Error() != err.Error() {
			l.log.Error("plan not applied", zap.Error(err))
		}
		l.applyErr = err
		return
	}
	if l.applyErr != nil || l.applied.IsZero() {
		l.log.Info("redirecting", zap.Int("pods", l.plan.EnrolledIPs()), zap.Int("frontends", len(l.node.Frontends)))
	}
	l.unapplied, l.applyErr, l.applied, l.pendingSince = false, nil, time.Now(), time.Time{}
}

// blocked says why nothing may be redirected to Envoy now; empty when it may.
func (l *loop) blocked() string {
	st := l.envoy.Status()
	switch {
	case !st.Connected:
		return "no Envoy is connected"
	case !st.ListenersAcked:
		return "Envoy has not accepted the listeners"
	case !st.Settled:
		return "Envoy has not answered the last change"
	case l.probed.at.Before(st.Since):
		l.prober.kick()
		return "Envoy's listener has not been tried yet"
	case l.probed.err != nil:
		return fmt.Sprintf("Envoy's listener does not answer: %v", l.probed.err)
	}
	return ""
}

// noteProbe records a request through Envoy's listener, and stops redirecting
// after several failures in a row.
func (l *loop) noteProbe(r probeResult) {
	l.probed = r
	if r.err == nil {
		l.failures = 0
		return
	}
	l.failures++
	l.metrics.probeFailures.Inc()
	if l.failures >= probeFailures && l.kernel.Engaged() {
		l.release(r.err.Error())
	}
}

// release stops redirecting new connections, for the reason given.
func (l *loop) release(why string) {
	was := l.kernel.Engaged()
	if err := serious(l.kernel.Release()); err != nil {
		l.log.Error("pods not released", zap.Error(err), zap.String("why", why))
		return
	}
	l.unapplied = true
	if was {
		l.metrics.releases.Inc()
		l.log.Warn("redirection stopped", zap.String("why", why))
	}
}

// refresh renews the dead man's switch, only with proof that Envoy works.
func (l *loop) refresh(ctx context.Context) {
	if !l.kernel.Engaged() || !l.envoy.Status().Connected || l.probed.err != nil {
		return
	}
	done := l.metrics.stage("refresh")
	err := l.kernel.Refresh(ctx)
	done(serious(err))
	if err != nil && !passing(err) {
		l.unapplied = true
		l.log.Error("pods not refreshed", zap.Error(err))
	}
}

// checkDrift looks for foreign edits of our rules; advance then repairs them.
func (l *loop) checkDrift(ctx context.Context) {
	if l.unapplied || !l.kernel.Engaged() {
		return
	}
	found, err := l.kernel.Drift(ctx, l.plan)
	if passing(err) {
		return
	}
	if err != nil {
		l.log.Error("rules not checked", zap.Error(err))
		return
	}
	for _, d := range found {
		l.log.Warn("drift found, repairing", zap.String("kind", d.Kind), zap.String("name", d.Name), zap.String("detail", d.Detail))
	}
	if len(found) == 0 {
		return
	}
	l.drift += len(found)
	l.metrics.drift.Add(float64(len(found)))
	l.unapplied, l.pendingSince = true, time.Now()
}

// noteNacks logs and counts what Envoy refused since the last look.
func (l *loop) noteNacks() {
	st := l.envoy.Status()
	fresh := st.NackCount - l.nacks
	l.nacks = st.NackCount
	for _, n := range st.Nacks[max(0, len(st.Nacks)-fresh):] {
		l.metrics.nacks.WithLabelValues(n.Type).Inc()
		l.log.Error("envoy refused configuration, its last good state stays in force",
			zap.String("type", n.Type), zap.String("detail", n.Detail))
	}
}

// timed runs one step on the plan and records it under the stage's name.
func (l *loop) timed(ctx context.Context, stage string, step func(context.Context, *redirect.Plan) error) error {
	done := l.metrics.stage(stage)
	err := step(ctx, l.plan)
	done(serious(err))
	l.superseded = errors.Is(err, handover.ErrSuperseded)
	return err
}

// passing says whether an error is no fault: Envoy went away while the step
// ran, and the next one starts it again, or a newer agent owns the kernel.
func passing(err error) bool {
	return errors.Is(err, redirect.ErrReleased) || errors.Is(err, handover.ErrSuperseded)
}

// serious is err, or nil if it is a passing one.
func serious(err error) error {
	if passing(err) {
		return nil
	}
	return err
}

// publishState lets everybody see where the loop stands.
func (l *loop) publishState() {
	s := &State{
		At: time.Now(), Phase: PhaseStarting, Reason: "Kubernetes objects are not all read yet",
		Node: l.node, Plan: l.plan, Findings: l.findings, Envoy: l.envoy.Status(),
		Problems: l.source.Problems(), Applied: l.applied,
		PendingSince: l.pendingSince, DriftRepaired: l.drift,
	}
	if l.probed.err != nil {
		s.ProbeErr = l.probed.err.Error()
	}
	if l.applyErr != nil {
		s.ApplyErr = l.applyErr.Error()
	}
	if l.node != nil {
		s.Problems = append(s.Problems[:len(s.Problems):len(s.Problems)], l.node.Problems...)
		s.Phase, s.Reason = PhaseRedirecting, ""
		if !l.kernel.Engaged() {
			s.Phase, s.Reason = PhaseWaiting, l.blocked()
		}
		if l.superseded {
			s.Phase, s.Reason = PhaseSuperseded, handover.ErrSuperseded.Error()
		}
	}
	l.state.Store(s)
	l.metrics.observeState(s)
}
