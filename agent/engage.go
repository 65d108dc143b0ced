// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/handover"
)

// probeFailures in a row, one a second, end redirection: a hung Envoy is
// left well before the switch ends redirection.
const probeFailures = 3

// proof is what is known of Envoy's data path: whether redirected connections
// would be served.
type proof struct {
	prober *prober
	last   probeResult
	// failures counts those in a row.
	failures int
	// adopted is set while rules that an earlier agent engaged may redirect.
	adopted bool
	// refreshDue is set when a refresh found no proof that Envoy works.
	refreshDue bool
}

// noteProbe records a request through Envoy's listener, and stops redirecting
// after several failures in a row.
func (l *loop) noteProbe(ctx context.Context, r probeResult) {
	l.proof.last = r
	if r.err == nil {
		l.proof.failures = 0
		if l.proof.refreshDue {
			l.refresh(ctx)
		}
		return
	}
	l.proof.failures++
	l.metrics.probeFailures.Inc()
	if l.proof.failures >= probeFailures && (l.proof.adopted || l.kernel.Engaged()) {
		l.proof.adopted = false
		l.disengage(r.err.Error())
	}
	// An older agent that cleaned up took the listeners' address along, which
	// was as much ours.
	if l.round.plan != nil {
		l.prepare(ctx)
	}
}

// envoyGone stops redirecting as soon as the last Envoy's stream ends. It is
// for the stream's goroutine, so that nothing the loop does delays it.
func (l *loop) envoyGone() { l.stopRedirecting("envoy is gone") }

// disengage stops redirecting, to start again when the gate allows it.
func (l *loop) disengage(why string) {
	if l.stopRedirecting(why) {
		l.round.unapplied = true
	}
}

// stopRedirecting has no new connection redirected, for the reason given, and
// says whether it could. It is for any goroutine.
func (l *loop) stopRedirecting(why string) bool {
	was := l.kernel.Engaged()
	if err := handover.Fault(l.kernel.Disengage()); err != nil {
		l.log.Error("redirection not stopped, it expires by itself", zap.Error(err), zap.String("why", why))
		return false
	}
	if was {
		l.metrics.stopped.Inc()
		l.log.Warn("redirection stopped", zap.String("why", why))
	}
	return true
}

// refresh renews the switch, only with proof that Envoy works: else
// it is due as soon as there is proof.
func (l *loop) refresh(ctx context.Context) {
	l.proof.refreshDue = false
	if !l.kernel.Engaged() || !l.envoy.Status().Connected {
		return
	}
	if l.proof.last.err != nil {
		l.proof.refreshDue = true
		return
	}
	done := l.metrics.stage("refresh")
	err := handover.Fault(l.kernel.Refresh(ctx))
	done(err)
	if err != nil {
		l.round.unapplied = true
		l.log.Error("switch not renewed", zap.Error(err))
	}
}

// checkDrift looks for foreign edits of our rules; advance then repairs them.
func (l *loop) checkDrift(ctx context.Context) {
	if l.round.unapplied || !l.kernel.Engaged() {
		return
	}
	found, err := l.kernel.Drift(ctx, l.round.plan)
	if handover.Benign(err) {
		return
	}
	l.note(&l.checkErr, "rules not checked", err)
	// What one family lacks is mended though the other can't be read.
	if len(found) > 0 || err == nil {
		l.noteDrift(found)
	}
	if len(found) == 0 {
		return
	}
	l.round.unapplied, l.round.pendingSince = true, time.Now()
}
