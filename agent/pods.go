// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
)

// podRedirector is what a redirector of pod mode tells besides. See pods.Pods.
type podRedirector interface {
	Targets() []model.PodTarget
	Relocate(ctx context.Context, desired *plan.Plan) (changed bool)
	Pending() bool
	SearchDue() bool
	Release() (changed bool)
	Report() map[string]pods.State
}

// The clocks of pod mode.
const (
	// locateInterval is how often it is checked whether a search for pods that are
	// missing is due, or pods are to have Envoy's ports back.
	locateInterval = 200 * time.Millisecond
	// searchInterval is the pause between two searches for all pods.
	searchInterval = 2 * time.Second
	// countPause is the least time between two counts of the connections of pods that
	// are to have Envoy's ports back, and countShare how many times longer the pause is
	// than a count takes: a pod may keep its connections for days.
	countPause, countShare = 500 * time.Millisecond, 20
)

// countLeaving has count called until ctx ends, beside the loop: on a busy node that
// takes longer than the loop may stand still.
func countLeaving(count func()) runner {
	return func(ctx context.Context) error {
		for {
			began := time.Now()
			count()
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(max(countPause, countShare*time.Since(began))):
			}
		}
	}
}

// relocate searches for pods that are not found and due, and now and then for all, and
// gives Envoy's ports back to pods that are to have them. It says whether Envoy has to
// listen in other pods.
func (l *loop) relocate(ctx context.Context) bool {
	if l.round.plan == nil || l.kernel.Superseded() {
		return false
	}
	changed := l.pods.Release()
	if l.pods.SearchDue() || time.Since(l.located) >= searchInterval {
		l.located = time.Now()
		changed = l.pods.Relocate(ctx, l.round.plan) || changed
	}
	return changed
}

// targets are the pods in which Envoy is to listen; none in host mode.
func (l *loop) targets() []model.PodTarget {
	if l.pods == nil {
		return nil
	}
	return l.pods.Targets()
}

// podReport says what became of each pod. Nil in host mode.
func (l *loop) podReport() map[string]pods.State {
	if l.pods == nil {
		return nil
	}
	return l.pods.Report()
}
