// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/redirect/probe"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/server"
)

// reporter lets everybody know what the loop sees: by log, metrics, Events, and
// the published State. What is no news is not logged again.
type reporter struct {
	findings probe.Findings
	metrics  *metrics
	log      *zap.Logger
	state    *atomic.Pointer[State]
	// tell says to the owners of objects what is wrong with them now; may be nil.
	tell func([]model.Problem)
	told map[model.Problem]bool
	// drift counts foreign edits that were found; checkErr is why rules could not
	// be checked, nil when they could.
	drift    int
	checkErr error
	// checked is when they were last checked, and found what differed then.
	checked time.Time
	found   []apply.Drift
	// nacks are those that were logged, podStates what was last logged of pods.
	nacks     int
	podStates map[string]pods.State
}

// tellProblems logs the problems that the last round did not have, and tells
// the objects' owners of all.
func (r *reporter) tellProblems(node *model.Node) {
	now := make(map[model.Problem]bool, len(node.Problems))
	for _, p := range node.Problems {
		now[p] = true
		if r.told[p] {
			continue
		}
		r.log.Warn("object can't be used as written", zap.String("kind", p.Kind), zap.String("namespace", p.Namespace),
			zap.String("name", p.Name), zap.String("field", p.Field), zap.String("detail", p.Detail))
	}
	r.told = now
	if r.tell != nil {
		r.tell(node.Problems)
	}
}

// note keeps what came of something as its last error, and logs one that is not the
// same as before. A nil error means that it succeeded.
func (r *reporter) note(last *error, what string, err error) {
	if err != nil && (*last == nil || (*last).Error() != err.Error()) {
		r.log.Error(what, zap.Error(err))
	}
	*last = err
}

// noteDrift keeps what a check found, and logs and counts foreign edits.
func (r *reporter) noteDrift(found []apply.Drift) {
	r.checked, r.found = time.Now(), found
	for _, d := range found {
		r.log.Warn("drift found, repairing", zap.String("kind", d.Kind), zap.String("name", d.Name), zap.String("detail", d.Detail))
	}
	r.drift += len(found)
	r.metrics.drift.Add(float64(len(found)))
}

// noteNacks logs and counts what Envoy refused since the last look. desired is nil
// until every object was read.
func (r *reporter) noteNacks(st server.Status, desired *plan.Plan) {
	fresh := st.NackCount - r.nacks
	r.nacks = st.NackCount
	for _, n := range st.Nacks[max(0, len(st.Nacks)-fresh):] {
		r.metrics.nacks.WithLabelValues(n.Type).Inc()
		level := zap.ErrorLevel
		if ofEndedPods(n, desired) {
			level = zap.DebugLevel
		}
		r.log.Log(level, "envoy refused configuration, its last good state stays in force",
			zap.String("type", n.Type), zap.String("detail", n.Detail))
	}
}

// ofEndedPods says whether Envoy refused nothing but listeners in pods that are gone
// or are ending, whose network namespaces went before it had opened them.
func ofEndedPods(n server.Nack, desired *plan.Plan) bool {
	if desired == nil || desired.Mode != plan.PodMode || n.Type != xds.KindListener.String() {
		return false
	}
	names := n.Refused()
	for i := range desired.Pods {
		p := &desired.Pods[i]
		target := model.PodTarget{Namespace: p.Namespace, Pod: p.Pod, UID: p.UID}
		refused := func(c model.Class) bool {
			return slices.Contains(names, xds.ListenerSpec{Class: c, Target: target}.Name())
		}
		if !p.Terminating && slices.ContainsFunc(model.Classes(), refused) {
			return false
		}
	}
	return true
}

// notePods logs what became of the plan's pods, when it is news.
func (r *reporter) notePods(desired *plan.Plan, report map[string]pods.State) {
	for i := range desired.Pods {
		p := &desired.Pods[i]
		now, before := report[p.UID], r.podStates[p.UID]
		if now == before {
			continue
		}
		fields := []zap.Field{zap.String("pod", p.Name()), zap.String("netns", now.Netns)}
		if now.Reason != "" {
			fields = append(fields, zap.String("why", now.Reason))
		}
		switch {
		case now.Redirecting:
			r.log.Info("pod redirected", fields...)
		case before.Redirecting && (p.Terminating || now.Netns == ""):
			// A pod that ends loses its namespace before its object goes.
			r.log.Info("pod not redirected any more", fields...)
		case p.Terminating:
			// Nor is it news that one which ends has none.
		default:
			r.log.Warn("pod not redirected", fields...)
		}
	}
	r.podStates = report
}

// publishState lets everybody see where the loop stands.
func (l *loop) publishState() {
	r := &l.round
	s := &State{
		At: time.Now(), Phase: PhaseStarting, Reason: "Kubernetes objects are not all read yet",
		Node: r.node, Plan: r.plan, Findings: l.findings, Envoy: l.envoy.Status(), InUse: l.envoy.InUse,
		Ledger: l.leaving.ledger, MemoryLimit: l.cfg.XDS.ClusterMemory,
		SourceProblems: l.source.Problems(), Applied: r.applied, ObjectsRead: r.read, Redirecting: r.redirecting,
		PendingSince: r.pendingSince, Checked: l.checked, Drift: l.found, DriftRepaired: l.drift,
		Mode: l.cfg.Redirect.Mode, Pods: l.podReport(), Leftover: l.kernel.Leftover(),
		ProbeErr: text(l.proof.last.err), ApplyErr: text(errors.Join(r.prepareErr, r.withdrawErr, r.applyErr)),
		CheckErr: cmp.Or(text(l.kernel.OwnershipErr()), text(errors.Join(l.checkErr, l.local.err))),
	}
	if r.node != nil {
		s.Phase, s.Reason = l.phase()
	}
	if s.Phase == PhaseSuperseded {
		s.ApplyErr = "" // The steps are the newer agent's now.
	}
	l.state.Store(s)
}

// phase is what the agent does with connections, and why it does not redirect
// them, or has not yet applied the last change.
func (l *loop) phase() (Phase, string) {
	switch {
	case l.kernel.Superseded():
		return PhaseSuperseded, handover.ErrSuperseded.Error()
	case !l.kernel.Engaged():
		return PhaseWaiting, cmp.Or(l.blocked(), "rules are about to be applied")
	case l.round.unapplied:
		return PhaseRedirecting, cmp.Or(l.blocked(), "the last change is about to be applied")
	}
	return PhaseRedirecting, ""
}

// text is an error's text, empty for none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
