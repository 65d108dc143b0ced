// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/handover"
)

// probeFailures in a row, one a second, end redirection: a hung Envoy is
// left well before the dead man's switch would.
const probeFailures = 3

// proof is what is known of Envoy's data path: whether redirected connections
// would be served.
type proof struct {
	prober *prober
	last   probeResult
	// failures counts those in a row.
	failures int
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
	if l.proof.failures >= probeFailures && l.kernel.Engaged() {
		l.release(r.err.Error())
	}
	// An older agent that cleaned up took the listeners' address along, which
	// was as much ours.
	if l.round.plan != nil {
		l.prepare(ctx)
	}
}

// envoyGone stops redirecting as soon as the last Envoy's stream ends. It is
// for the stream's goroutine, so that nothing the loop does delays it.
func (l *loop) envoyGone() {
	was := l.kernel.Engaged()
	if err := handover.Fault(l.kernel.Disengage()); err != nil {
		l.log.Error("envoy is gone and its pods are not released, they expire by themselves", zap.Error(err))
	}
	if was {
		l.metrics.releases.Inc()
		l.log.Warn("redirection stopped", zap.String("why", "envoy is gone"))
	}
}

// release stops redirecting new connections, for the reason given.
func (l *loop) release(why string) {
	was := l.kernel.Engaged()
	if err := handover.Fault(l.kernel.Disengage()); err != nil {
		l.log.Error("pods not released", zap.Error(err), zap.String("why", why))
		return
	}
	l.round.unapplied = true
	if was {
		l.metrics.releases.Inc()
		l.log.Warn("redirection stopped", zap.String("why", why))
	}
}

// refresh renews the dead man's switch, only with proof that Envoy works: else
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
		l.log.Error("pods not refreshed", zap.Error(err))
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
	l.noteCheckError(err)
	// What one family lacks is mended though the other can't be read.
	if len(found) == 0 {
		return
	}
	l.noteDrift(found)
	l.round.unapplied, l.round.pendingSince = true, time.Now()
}
