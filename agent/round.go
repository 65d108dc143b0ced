// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/xds/server"
)

// round is how far the loop has come with the changes it has seen: what it has
// built, handed to Envoy, and put into the kernel.
type round struct {
	// built is the node as its objects have it, node the same with the classes that
	// follow from what Envoy has seen, and plan is made of it; all are nil until every
	// object was read once.
	built, node *model.Node
	plan        *plan.Plan
	// seen is what Envoy had seen when its status of this name was useChanges.
	seen       map[netip.AddrPort]model.Seen
	useChanges uint64
	// refused is what of node Envoy refuses, and the plan leaves out.
	refused server.Refused
	// served is what Envoy was last given: node, and what the kernel may still
	// redirect to although node has it no more.
	served *model.Node
	// stale is set from a change of objects until the next build.
	stale bool
	// prepareErr, withdrawErr and applyErr are why the last try of that step failed;
	// nil when it did not. Only the step's own success clears it.
	prepareErr, withdrawErr, applyErr error
	// unapplied is set until the kernel holds the plan, retryAt is when a failed try
	// to apply it is repeated.
	unapplied bool
	retryAt   time.Time
	// otherMode is set while an agent of the other mode that has ended may still
	// redirect to Envoy's present listeners.
	otherMode bool
	// started is when the loop began, read when every object was read for the first
	// time, published when Envoy was last given anything, applied when the kernel
	// last held the whole plan, and redirecting when it last began to redirect.
	started, read, published, applied, redirecting time.Time
	// pendingSince is when the oldest change came that is not in the kernel and in
	// Envoy yet; zero when there is none.
	pendingSince time.Time
}

// change notes that objects changed.
func (r *round) change(now time.Time) {
	r.stale = true
	r.pending(now)
}

// pending notes that something is not in the kernel yet.
func (r *round) pending(now time.Time) {
	if r.pendingSince.IsZero() {
		r.pendingSince = now
	}
}

// due has the plan applied as soon as the gate allows it.
func (r *round) due() { r.unapplied, r.retryAt = true, time.Time{} }

// renew hands what changed to Envoy: the node's view, or only the pods in which
// Envoy listens.
func (l *loop) renew(ctx context.Context) {
	if l.round.stale {
		l.round.stale = false
		l.rebuild(ctx)
		return
	}
	l.round.due()
	l.publish()
}

// rebuild makes the node's view anew, takes out of the kernel what is no more,
// and hands the rest to Envoy. What is new enters the kernel in advance, once
// Envoy has it.
func (l *loop) rebuild(ctx context.Context) {
	first := l.round.plan == nil
	if first {
		l.round.read = time.Now()
		l.log.Info("all objects are read")
	}
	done := l.metrics.stage("build")
	l.round.built = l.builder.Build(l.inputs())
	l.learned()
	l.compile(l.envoy.Status().Refused)
	done(nil)
	l.tellProblems(l.round.node)
	l.round.due()
	l.prepare(ctx)
	if first {
		l.adopt(ctx)
	}
	l.withdraw(ctx)
	l.publish()
}

// compile makes the plan of what Envoy can serve. What it refused is left to
// kube-proxy, which is for the frontend or the pod concerned alone.
func (l *loop) compile(refused server.Refused) {
	r := &l.round
	node := r.node
	if refused.Any() {
		node = node.Bypassing(refused.Frontend)
	}
	r.refused, r.plan = refused, plan.Compile(l.leavingNode(node), l.cfg.Redirect).Blocking(refused.Pods)
}

// recompile makes the plan anew when Envoy refuses more or less than before.
func (l *loop) recompile(ctx context.Context, refused server.Refused) {
	if l.round.node == nil || l.round.refused.Equal(refused) {
		return
	}
	l.compile(refused)
	l.round.due()
	l.withdraw(ctx)
}

// prepare puts into the kernel what Envoy's listeners need.
func (l *loop) prepare(ctx context.Context) {
	err := l.timed(ctx, "prepare", l.kernel.Prepare)
	l.note(&l.round.prepareErr, "kernel not prepared", err)
	l.round.otherMode = errors.Is(err, handover.ErrOtherMode)
}

// adopt decides about what an earlier agent left in the kernel: it stays while
// its Envoy answers, and stops redirecting at once when nobody listens. Any other
// failure may be of this one try: noteProbe stops it after several in a row. An
// Envoy that the earlier agent left draining is told to go on.
func (l *loop) adopt(ctx context.Context) {
	if l.resume != nil {
		if err := l.resume(ctx); err != nil {
			l.log.Error("envoy may still drain and close connections early", zap.Error(err))
		}
	}
	l.proof.adopted, l.proof.failures = true, 0
	err := l.proof.prober.try(ctx)
	if err == nil {
		return
	}
	l.proof.failures++
	l.log.Info("no envoy answers yet", zap.Error(err))
	if errors.Is(err, unix.ECONNREFUSED) {
		l.proof.adopted = false
		l.disengage("no Envoy answers")
	}
}

// withdraw takes out of the kernel what the plan has no more. Until it succeeds
// Envoy keeps being served that: it may still be redirected there.
func (l *loop) withdraw(ctx context.Context) {
	was := l.round.withdrawErr
	err := l.timed(ctx, "withdraw", l.kernel.Withdraw)
	if err == nil {
		l.leaving.withdrawn = time.Now()
	}
	err = handover.Fault(err)
	l.note(&l.round.withdrawErr, "stale members not withdrawn", err)
	if was != nil && err == nil && l.round.served != nil {
		l.publish()
	}
}

// publish hands the node's view to Envoy, with what could not be withdrawn.
// Envoy must not lose listeners to which an agent of the other mode redirects:
// until that agent's switch has run out, the first publication is left to retry.
func (l *loop) publish() {
	r := &l.round
	if r.served == nil && r.otherMode && time.Since(r.started) < l.cfg.Redirect.Timeout {
		return
	}
	node := l.servedNode(r.node)
	if r.withdrawErr != nil && r.served != nil {
		node = node.Keeping(r.served)
	}
	done := l.metrics.stage("publish")
	l.envoy.Publish(node, l.targets())
	r.served, r.published = node, time.Now()
	done(nil)
}

// advance applies the plan when it is due and Envoy is ready for it.
func (l *loop) advance(ctx context.Context) {
	r := &l.round
	if r.plan == nil {
		return
	}
	if l.kernel.Superseded() {
		// The newer agent applies what there is.
		r.unapplied, r.pendingSince = true, time.Time{}
		return
	}
	if !l.applyDue() || time.Now().Before(r.retryAt) || r.served == nil || l.blocked() != "" {
		return
	}
	was := l.kernel.Engaged()
	if !was {
		l.learn(ctx) // An Envoy that an earlier agent served has seen much already.
	}
	err := l.timed(ctx, "apply", l.kernel.Apply)
	if handover.Benign(err) {
		return
	}
	l.notePods(r.plan, l.podReport())
	if err != nil {
		r.retryAt = time.Now().Add(retryInterval)
	}
	if err != nil && !errors.Is(err, pods.ErrPartial) {
		l.note(&r.applyErr, "plan not applied", err)
		r.pending(time.Now())
		return
	}
	if r.applyErr != nil || !was {
		r.redirecting = time.Now()
		l.log.Info("redirecting", zap.Int("podAddresses", r.plan.EnrolledIPs()), zap.Int("frontends", len(r.node.Frontends)))
	}
	r.unapplied, r.applyErr, r.applied, r.pendingSince = false, nil, time.Now(), time.Time{}
}

// applyDue says whether there is something to apply.
func (l *loop) applyDue() bool {
	return l.round.unapplied || !l.kernel.Engaged() || l.pods != nil && l.pods.Pending()
}

// blocked says why nothing may be redirected to Envoy now; empty when it may.
func (l *loop) blocked() string {
	why := gate{podMode: l.pods != nil, envoy: l.envoy.Status(), proof: l.proof.last}.closed()
	if why == notProbed {
		l.proof.prober.kick()
	}
	return why
}

// timed runs one step on the plan and records it under the stage's name.
func (l *loop) timed(ctx context.Context, stage string, step func(context.Context, *plan.Plan) error) error {
	done := l.metrics.stage(stage)
	err := step(ctx, l.round.plan)
	if fault := handover.Fault(err); errors.Is(fault, pods.ErrPartial) {
		done(nil) // The pods that it is about are told of, and counted, one by one.
	} else {
		done(fault)
	}
	return err
}
