// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
)

// inPods is what a redirector of pod mode tells besides. See pods.Pods.
type inPods interface {
	Targets() []model.PodTarget
	Relocate(ctx context.Context, desired *plan.Plan) (changed bool)
	Pending() bool
	Report() map[string]pods.State
}

// The clocks of pod mode.
const (
	// locateInterval is the pause between two looks for pods that are missing.
	locateInterval = 200 * time.Millisecond
	// lookInterval is that pause while every pod is redirected.
	lookInterval = 2 * time.Second
)

// locateTicks says when to look for pods: never in host mode.
func (l *loop) locateTicks() (<-chan time.Time, func()) {
	if l.pods == nil {
		return nil, func() {}
	}
	t := time.NewTicker(locateInterval)
	return t.C, t.Stop
}

// relocate looks for pods that are not redirected as they should be, and now and
// then for all. It says whether Envoy has to be told of other places.
func (l *loop) relocate(ctx context.Context) bool {
	if l.round.plan == nil || l.kernel.Superseded() || (!l.podsLack() && time.Since(l.located) < lookInterval) {
		return false
	}
	l.located = time.Now()
	return l.pods.Relocate(ctx, l.round.plan)
}

// podsLack says whether any enrolled pod lacks anything.
func (l *loop) podsLack() bool {
	report := l.pods.Report()
	for i := range l.round.plan.Pods {
		if s := report[l.round.plan.Pods[i].UID]; !s.Redirecting || s.Reason != "" {
			return true
		}
	}
	return false
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

// refusals are the places where Envoy could not listen, by the path of the
// network namespace. What the loop records there, those who ask in pods look up.
type refusals struct {
	byPath atomic.Pointer[map[string]string]
}

// in returns ErrNoListener, and what Envoy said, for a path where it could not
// listen.
func (r *refusals) in(path string) error {
	all := r.byPath.Load()
	if all == nil {
		return nil
	}
	if detail, ok := (*all)[path]; ok {
		return fmt.Errorf("%w: %s", pods.ErrNoListener, detail)
	}
	return nil
}

// noteRefusals lets those who ask in pods know where Envoy could not listen. A
// pod with two listeners of three is as badly off as one with none: connections
// would be sent to the third.
func (l *loop) noteRefusals() {
	if l.pods == nil {
		return
	}
	refused := l.envoy.Status().Refused.Pods
	byPath := map[string]string{}
	for _, p := range l.pods.Targets() {
		if why, ok := refused[p.UID]; ok {
			byPath[p.Netns] = why
		}
	}
	l.refused.byPath.Store(&byPath)
}
