// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/budget"
	"github.com/nodevoy/nodevoy/agent/debug/table"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

// reviewInterval is how often it is looked whether Envoy's memory for Services in use
// is short. In that time Envoy loads a hundred at most.
const reviewInterval = 200 * time.Millisecond

// leaving is which frontends are left to kube-proxy for want of memory in Envoy.
type leaving struct {
	sampler *sampler
	ledger  *budget.Ledger
	sample  budget.Sample
	// withdrawn is when the kernel last held nothing beyond the plan.
	withdrawn time.Time
	// crowded is how many Services had many frontends in use at the last review: one
	// more is closed at once, as its calls come faster than reviews.
	crowded int
	// sampleErr is why connections can't be listed; nil when they can.
	sampleErr error
}

// review decides which frontends are left to kube-proxy. These leave the kernel
// first, and Envoy when no connection uses them any more. It says whether anything
// changed.
func (l *loop) review(ctx context.Context) (changed bool) {
	r, status := &l.round, l.envoy.Status()
	l.leaving.crowded = status.Crowded
	// Two Envoys, while one takes over from another, have the memory twice.
	limit := l.cfg.XDS.ClusterMemory * int64(max(status.Streams, 1))
	if budget.Over(status.Memory, limit) || l.leaving.ledger.Waits() {
		l.leaving.sampler.ask()
	} else {
		l.leaving.sample = budget.Sample{} // The next decision needs one of its time.
		if l.leaving.ledger.None() && status.Denied == 0 && status.Crowded == 0 {
			return false
		}
	}
	if r.served == nil || l.kernel.Superseded() {
		return false
	}
	before := l.leaving.ledger
	next, changed := before.Review(l.budgetInput(limit))
	l.leaving.ledger = next
	if !changed {
		return false
	}
	l.tellLeft(before, next)
	l.compile(r.refused)
	r.due()
	r.pending(time.Now())
	l.withdraw(ctx)
	l.publish()
	return true
}

// budgetInput is what a review looks at.
func (l *loop) budgetInput(limit int64) budget.Input {
	node := l.round.node
	exists := func(at netip.AddrPort, port model.ServicePort) bool {
		f, ok := node.Frontend(at)
		return ok && f.Port == port
	}
	in := budget.Input{
		Now: time.Now(), Limit: limit, Most: xds.MaxFrontends, Sample: l.leaving.sample, Withdrawn: l.leaving.withdrawn, Exists: exists,
	}
	uses, denied := l.envoy.Uses()
	for _, u := range uses {
		if exists(u.Frontend, u.Port) { // The others go anyway.
			in.Uses = append(in.Uses, budget.Use{Frontend: u.Frontend, Port: u.Port, Memory: u.Memory, Number: u.Number})
		}
	}
	for _, at := range denied {
		if f, ok := node.Frontend(at); ok {
			in.Denied = append(in.Denied, budget.Use{Frontend: at, Port: f.Port, Memory: xds.ClusterMemory(f)})
		}
	}
	return in
}

// noteSample takes in which connections there are.
func (l *loop) noteSample(ctx context.Context, s sampled) {
	l.leaving.sample = s.Sample
	l.note(&l.leaving.sampleErr, "can't tell which Services are in use", s.err)
	l.review(ctx)
}

// leavingNode is the node without what is left to kube-proxy, as the kernel is to
// have it.
func (l *loop) leavingNode(node *model.Node) *model.Node {
	if l.leaving.ledger.None() {
		return node
	}
	used := map[netip.AddrPort]bool{}
	for _, at := range l.envoy.InUse() {
		used[at] = true
	}
	return node.Bypassing(func(f *model.Frontend) string { return l.leaving.ledger.Why(f, used[f.Address]) })
}

// servedNode is the node without what no connection uses any more of that, as Envoy
// is to have it.
func (l *loop) servedNode(node *model.Node) *model.Node {
	if len(l.leaving.ledger.Left) == 0 {
		return node
	}
	return node.Bypassing(func(f *model.Frontend) string {
		if l.leaving.ledger.Gone(f.Address) {
			return "left to kube-proxy"
		}
		return ""
	})
}

// tellLeft logs and counts which Services are newly left, or come back.
func (r *reporter) tellLeft(before, next *budget.Ledger) {
	fresh := map[string]int{}
	for at, left := range next.Left {
		if _, was := before.Left[at]; !was {
			fresh[left.Port.ServiceName()]++
			r.metrics.evicted.Inc()
		}
	}
	if len(fresh) > 0 {
		r.log.Warn("memory of envoy for services in use is limited, frontends are left to kube-proxy", zap.Strings("services", table.MostLeft(fresh, len(fresh))))
	}
	if closed := next.Closed(); len(closed) > 0 && !slices.Equal(before.Closed(), closed) {
		r.log.Warn("memory of envoy for services in use is limited, no further frontends come into use", zap.Strings("of", closed))
	}
	if !before.None() && next.None() {
		r.log.Info("no frontend is left to kube-proxy for want of memory any more")
	}
}
