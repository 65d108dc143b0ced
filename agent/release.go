// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/handover"
)

// envoyGone stops redirecting as soon as the last Envoy's stream ends. It is
// for the stream's goroutine, so that nothing the loop does delays it.
func (l *loop) envoyGone() {
	was := l.kernel.Engaged()
	if err := handover.Fault(l.kernel.Release()); err != nil {
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
	if err := handover.Fault(l.kernel.Release()); err != nil {
		l.log.Error("pods not released", zap.Error(err), zap.String("why", why))
		return
	}
	l.unapplied = true
	if was {
		l.metrics.releases.Inc()
		l.log.Warn("redirection stopped", zap.String("why", why))
	}
}

// refresh renews the dead man's switch, only with proof that Envoy works: else
// it is due as soon as there is proof.
func (l *loop) refresh(ctx context.Context) {
	l.refreshDue = false
	if !l.kernel.Engaged() || !l.envoy.Status().Connected {
		return
	}
	if l.probed.err != nil {
		l.refreshDue = true
		return
	}
	done := l.metrics.stage("refresh")
	err := l.kernel.Refresh(ctx)
	done(handover.Fault(err))
	if err != nil && !handover.Benign(err) {
		l.unapplied = true
		l.log.Error("pods not refreshed", zap.Error(err))
	}
}
