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
	Publish(node *model.Node, places []model.PodTarget)
	Changed() <-chan struct{}
	Status() xds.Status
}

// redirector is what the loop redirects with: the kernel, as far as this
// generation of the agent may touch it. See handover.Fence.
type redirector interface {
	Prepare(ctx context.Context, plan *redirect.Plan) error
	Withdraw(ctx context.Context, plan *redirect.Plan) error
	Apply(ctx context.Context, plan *redirect.Plan) error
	Release() error
	Refresh(ctx context.Context) error
	Drift(ctx context.Context, plan *redirect.Plan) ([]redirect.Drift, error)
	Engaged() bool
	// Superseded says whether a newer agent on this node owns the rules.
	Superseded() bool
	// Leftover says what an agent of the other mode left that can't be removed.
	Leftover() string
}

// The loop's clocks.
const (
	// driftInterval leaves time for the repair within the promised 5 s.
	driftInterval = 2 * time.Second
	// retryInterval is the pause after a failed apply.
	retryInterval = time.Second
	// answerPatience is how long a rebuild waits for Envoy to answer the last one.
	// Envoy would be sent nothing meanwhile, and were each answer to find the
	// next change published, nothing would ever be applied.
	answerPatience = time.Second
	// answerPoll is how often it looks; usually Envoy's answer wakes the loop.
	answerPoll = 5 * time.Millisecond
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
	// pods tells of each pod, and refused where Envoy can't listen; both are nil
	// in host mode.
	pods    inPods
	refused *refusals
	prober  *prober
	metrics *metrics
	log     *zap.Logger
	state   *atomic.Pointer[State]
	// tell says to the owner of an object what is wrong with it; may be nil.
	tell func(model.Problem)
	told map[model.Problem]bool
	// resume ends the draining of an Envoy that is there already; may be nil.
	resume func(context.Context) error

	node *model.Node
	plan *redirect.Plan
	// stale is set from a change of objects until the next rebuild.
	stale bool
	// unapplied is set from a change until the kernel holds the plan.
	unapplied    bool
	pendingSince time.Time
	applied      time.Time
	// read is when every object was read for the first time, redirecting when
	// the kernel last began to redirect.
	read, redirecting time.Time
	applyErr          error
	// retryAt is when a failed apply is due again.
	retryAt   time.Time
	published time.Time
	// refreshDue is set when a refresh found no proof that Envoy works.
	refreshDue bool
	drift      int
	driftErr   string
	probed     probeResult
	failures   int
	nacks      int
	// looked is when pods were last looked for, podStates what was last told.
	looked    time.Time
	podStates map[string]redirect.PodState
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
	locate, stop := l.locateTicks()
	defer stop()
	var debounce <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.source.Changed():
			if l.stale = true; l.pendingSince.IsZero() {
				l.pendingSince = time.Now()
			}
			if debounce == nil {
				debounce = time.After(l.cfg.Debounce)
			}
			continue
		case <-locate:
			if l.relocate(ctx) && debounce == nil {
				debounce = time.After(0)
			}
			continue
		case <-debounce:
			if l.unanswered() {
				debounce = time.After(answerPoll)
				continue
			}
			debounce = nil
			l.renew(ctx)
		case <-l.envoy.Changed():
			l.noteNacks()
			l.noteRefusals()
		case r := <-l.prober.results:
			l.noteProbe(ctx, r)
		case <-refresh.C:
			l.refresh(ctx)
		case <-drift.C:
			l.checkDrift(ctx)
		case <-retry.C:
			l.retryRefused()
		}
		l.advance(ctx)
		l.publishState()
	}
}

// unanswered says whether a change had better wait, because Envoy is still busy
// with the one before.
func (l *loop) unanswered() bool {
	st := l.envoy.Status()
	return st.Connected && !st.Settled && time.Since(l.published) < answerPatience
}

// renew hands what changed to Envoy: the node's view, or only the places where
// Envoy listens.
func (l *loop) renew(ctx context.Context) {
	if l.stale {
		l.stale = false
		l.rebuild(ctx)
		return
	}
	l.unapplied, l.retryAt = true, time.Time{}
	l.publish()
}

// rebuild makes the node's view anew, takes out of the kernel what is no more,
// and hands the rest to Envoy. What is new enters the kernel in advance, once
// Envoy has it.
func (l *loop) rebuild(ctx context.Context) {
	first := l.plan == nil
	if first {
		l.read = time.Now()
		l.log.Info("all objects are read")
	}
	done := l.metrics.stage("build")
	l.node = model.Build(l.source.Inputs(), l.cfg.Model)
	l.plan = redirect.Compile(l.node, l.cfg.Redirect)
	done(nil)
	l.tellProblems()
	l.unapplied, l.retryAt = true, time.Time{}
	l.prepare(ctx)
	if first {
		l.adopt(ctx)
	}
	if err := l.timed(ctx, "withdraw", l.kernel.Withdraw); handover.Fault(err) != nil {
		l.noteError("stale members not withdrawn", err)
	}
	l.publish()
	l.metrics.observeNode(l.node)
}

// publish hands the node's view to Envoy.
func (l *loop) publish() {
	done := l.metrics.stage("publish")
	l.envoy.Publish(l.node, l.places())
	l.published = time.Now()
	done(nil)
}

// prepare puts into the kernel what Envoy's listeners need.
func (l *loop) prepare(ctx context.Context) {
	if err := l.timed(ctx, "prepare", l.kernel.Prepare); err != nil {
		l.noteError("kernel not prepared", err)
	}
}

// adopt decides about what an earlier agent left in the kernel: it stays while
// its Envoy answers, and stops redirecting at once when none does. An Envoy that
// the earlier agent left draining is told to go on.
func (l *loop) adopt(ctx context.Context) {
	if l.resume != nil {
		if err := l.resume(ctx); err != nil {
			l.log.Error("envoy may still drain and close connections early", zap.Error(err))
		}
	}
	if err := l.prober.try(ctx); err != nil {
		l.log.Info("no envoy answers yet", zap.Error(err))
		l.release("no Envoy answers")
	}
}

// advance applies the plan when it is due and Envoy is ready for it.
func (l *loop) advance(ctx context.Context) {
	if l.plan == nil {
		return
	}
	if l.kernel.Superseded() {
		// The newer agent applies what there is.
		l.unapplied, l.pendingSince, l.applyErr = true, time.Time{}, nil
		return
	}
	if !l.due() || time.Now().Before(l.retryAt) {
		return
	}
	l.noteRefusals()
	if why := l.blocked(); why != "" {
		return
	}
	was := l.kernel.Engaged()
	err := l.timed(ctx, "apply", l.kernel.Apply)
	if handover.Benign(err) {
		return
	}
	l.notePods()
	if err != nil {
		l.retryAt = time.Now().Add(retryInterval)
	}
	if err != nil && !errors.Is(err, redirect.ErrPartial) {
		l.noteError("plan not applied", err)
		if l.pendingSince.IsZero() {
			l.pendingSince = time.Now()
		}
		return
	}
	if l.applyErr != nil || !was {
		l.redirecting = time.Now()
		l.log.Info("redirecting", zap.Int("podAddresses", l.plan.EnrolledIPs()), zap.Int("frontends", len(l.node.Frontends)))
	}
	l.unapplied, l.applyErr, l.applied, l.pendingSince = false, nil, time.Now(), time.Time{}
}

// due says whether there is something to apply.
func (l *loop) due() bool {
	return l.unapplied || !l.kernel.Engaged() || l.pods != nil && l.pods.Pending()
}

// blocked says why nothing may be redirected to Envoy now; empty when it may.
func (l *loop) blocked() string {
	st := l.envoy.Status()
	switch {
	case !st.Connected:
		return "no Envoy is connected"
	case l.pods != nil && olderThan(st.EnvoyVersion, podModeEnvoy):
		return fmt.Sprintf("Envoy %s is older than %s, which pod mode needs", st.EnvoyVersion, podModeEnvoy)
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
func (l *loop) noteProbe(ctx context.Context, r probeResult) {
	l.probed = r
	if r.err == nil {
		l.failures = 0
		if l.refreshDue {
			l.refresh(ctx)
		}
		return
	}
	l.failures++
	l.metrics.probeFailures.Inc()
	if l.failures >= probeFailures && l.kernel.Engaged() {
		l.release(r.err.Error())
	}
	// An older agent that cleaned up took the listeners' address along, which
	// was as much ours.
	if l.plan != nil {
		l.prepare(ctx)
	}
}

// checkDrift looks for foreign edits of our rules; advance then repairs them.
func (l *loop) checkDrift(ctx context.Context) {
	if l.unapplied || !l.kernel.Engaged() {
		return
	}
	found, err := l.kernel.Drift(ctx, l.plan)
	if handover.Benign(err) {
		return
	}
	l.noteDriftError(err)
	// What one family lacks is mended though the other can't be read.
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

// timed runs one step on the plan and records it under the stage's name.
func (l *loop) timed(ctx context.Context, stage string, step func(context.Context, *redirect.Plan) error) error {
	done := l.metrics.stage(stage)
	err := step(ctx, l.plan)
	if fault := handover.Fault(err); errors.Is(fault, redirect.ErrPartial) {
		done(nil) // The pods that it is about are told of, and counted, one by one.
	} else {
		done(fault)
	}
	return err
}
