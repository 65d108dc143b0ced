// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/apply"
)

// sweeps is how far the search has come for what an earlier agent left in pods that
// are not in the plan. The zero value is that of a search that has not begun.
type sweeps struct {
	// done is set once nothing is left, next is when a search is due else.
	done bool
	next time.Time
	// list is about the list of namespaces, spaces about each of them, by inode.
	list   sweep
	spaces map[uint64]*sweep
}

// sweep is what became of one of them.
type sweep struct {
	done    bool
	err     error
	backoff backoff
}

// due says whether something can be done at this time.
func (s *sweeps) due(now time.Time) bool { return !s.done && !now.Before(s.next) }

// sweep does, to pods that are not in the plan, what unenrol does: an earlier agent
// may have left something there. Each is tried until that has worked once, ever more
// rarely. That it fails holds up nobody.
func (p *Pods) sweep(ctx, open context.Context) {
	if !p.sweeps.due(p.now()) || open.Err() != nil {
		return
	}
	all, err := p.finder.All()
	next := sweeps{list: p.sweeps.list, spaces: map[uint64]*sweep{}}
	p.noteSweep(&next.list, "network namespaces", err)
	located := map[uint64]bool{}
	for _, pod := range p.list() {
		located[pod.ns.Inode()] = true
	}
	var todo []namespace
	for _, ns := range all {
		s := cmp.Or(p.sweeps.spaces[ns.Inode()], &sweep{})
		next.spaces[ns.Inode()] = s
		s.done = s.done || located[ns.Inode()]
		if s.done || !s.backoff.due(p.now()) {
			_ = ns.Close() // Nothing was written.
			continue
		}
		todo = append(todo, ns)
	}
	_ = pass(ctx, open, todo, func(ctx context.Context, ns namespace) error {
		return p.visit(ctx, ns, (*apply.Applier).Drain)
	}, func(ns namespace, err error) error {
		if ctx.Err() == nil && !errors.Is(err, errLater) {
			p.noteSweep(next.spaces[ns.Inode()], ns.Path(), err)
		}
		return ns.Close()
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweeps = next
	p.sweeps.schedule()
}

// noteSweep notes, and logs once, what became of an attempt.
func (p *Pods) noteSweep(s *sweep, what string, err error) {
	if err != nil && s.err == nil {
		p.log.Warn("not searched for what an earlier agent left, to be tried again", zap.String("what", what), zap.Error(err))
	}
	s.done, s.err = err == nil, err
	if err == nil {
		return
	}
	first := firstPause
	if errors.Is(err, errUntold) {
		first = longestPause
	}
	s.backoff.failed(p.now(), first)
}

// schedule says when something can be done next.
func (s *sweeps) schedule() {
	s.done = true
	for _, one := range append(slices.Collect(maps.Values(s.spaces)), &s.list) {
		if !one.done && (s.done || one.backoff.next.Before(s.next)) {
			s.done, s.next = false, one.backoff.next
		}
	}
}
