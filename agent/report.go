// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/agent/model"
)

// noteError shows an error of a step on the plan, and logs it unless it is the
// one that was logged last.
func (l *loop) noteError(what string, err error) {
	if l.applyErr == nil || l.applyErr.Error() != err.Error() {
		l.log.Error(what, zap.Error(err))
	}
	l.applyErr = err
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

// noteDriftError logs why rules could not be checked, when that is news.
func (l *loop) noteDriftError(err error) {
	what := ""
	if err != nil {
		what = err.Error()
	}
	if what != "" && what != l.driftErr {
		l.log.Error("rules not checked", zap.Error(err))
	}
	l.driftErr = what
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

// publishState lets everybody see where the loop stands.
func (l *loop) publishState() {
	envoy := l.envoy.Status()
	s := &State{
		At: time.Now(), Phase: PhaseStarting, Reason: "Kubernetes objects are not all read yet",
		Node: l.node, Plan: l.plan, Findings: l.findings, Envoy: envoy,
		Problems: l.source.Problems(), Applied: l.applied, ObjectsRead: l.read, Redirecting: l.redirecting,
		PendingSince: l.pendingSince, DriftRepaired: l.drift,
		Mode: l.cfg.Redirect.Mode, Pods: l.report(), Leftover: l.kernel.Leftover(),
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
			s.Phase, s.Reason = PhaseWaiting, cmp.Or(l.blocked(), "rules are about to be applied")
		}
		if l.kernel.Superseded() {
			s.Phase, s.Reason = PhaseSuperseded, handover.ErrSuperseded.Error()
		}
	}
	l.state.Store(s)
	l.metrics.observeState(s)
}
