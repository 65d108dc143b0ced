// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
)

// learn moves the frontends whose protocol is detected to the classes that follow from
// what Envoy has seen by now, and says whether it moved any. Envoy needs to be told
// nothing.
func (l *loop) learn(ctx context.Context) bool {
	r := &l.round
	if r.plan == nil || l.kernel.Superseded() || l.envoy.Status().UseChanges == r.useChanges {
		return false
	}
	before := r.node
	l.learned()
	sameClass := func(a, b *model.Frontend) bool { return a.Class == b.Class }
	if slices.EqualFunc(before.Frontends, r.node.Frontends, sameClass) {
		return false
	}
	l.compile(r.refused)
	r.due()
	r.pending(time.Now())
	l.withdraw(ctx)
	return true
}

// learned makes the node of what was built last and what Envoy has seen, of which it is
// only asked if that may have changed.
func (l *loop) learned() {
	r := &l.round
	if changes := l.envoy.Status().UseChanges; changes != r.useChanges || r.seen == nil {
		r.useChanges, r.seen = changes, l.envoy.Seen() // In this order, so as to miss nothing.
	}
	r.node = r.built.Learning(r.seen)
}
