// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// Withdraw removes what the plan has no more: members of the sets, and from
// redirection the pods that are not enrolled any more. It adds nothing and never
// touches rules, so it is safe at any time.
func (p *Pods) Withdraw(ctx context.Context, plan *Plan) error {
	p.long.Lock()
	defer p.long.Unlock()
	defer p.shared.remember()()
	plans := p.planned(plan)
	return p.each(ctx, p.all(), func(ctx context.Context, pl *place) error {
		pp, enrolled := plans[pl.UID]
		if !enrolled {
			p.mu.Lock()
			pl.enrolled, pl.retired = false, pl.retired && !pl.enrolled
			p.mu.Unlock()
			return named(pl, pl.applier.sources.release())
		}
		return named(pl, errors.Join(pl.applier.narrow(pp), pl.applier.Withdraw(ctx, pp)))
	})
}

// planned is what each place is to hold, as a plan of its own, by UID: of the
// families whose addresses are there.
func (p *Pods) planned(plan *Plan) map[string]*Plan {
	plans := map[string]*Plan{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range plan.Places {
		if pl := p.places[plan.Places[i].UID]; pl != nil {
			pp := plan.Places[i].only(pl.held)
			plans[pl.UID] = &Plan{Mode: PodMode, Families: pp.Families}
		}
	}
	return plans
}

func named(pl *place, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pod %s/%s: %w", pl.Namespace, pl.Pod, err)
}

// Apply makes all places hold the plan, and pods redirected that are not yet, if
// Envoy answers in them. A pod in which all holds already costs nothing. Of pods
// that are not enrolled any more it removes rules and sets. The error wraps
// ErrPartial when it is about pods that can't be redirected while others are, or
// are only missing something of their own; it is ErrReleased when Release was
// called after Apply began.
func (p *Pods) Apply(ctx context.Context, plan *Plan) error {
	p.long.Lock()
	defer p.long.Unlock()
	if p.cfg.Backend == iptables.AutoBackend {
		return errUndecided
	}
	defer p.shared.remember()()
	// Of all places at once, before any: a Release from now on is for all.
	ticket := p.shared.ticket()
	p.sweep(ctx)
	plans := p.planned(plan)
	err := p.each(ctx, p.all(), func(ctx context.Context, pl *place) error {
		var err error
		if wanted := plans[pl.UID]; wanted != nil {
			err = p.applyPlace(ctx, pl, wanted, ticket)
		} else {
			err = p.retire(ctx, pl)
		}
		if errors.Is(err, ErrReleased) || ctx.Err() != nil {
			// No trouble of the pod's.
			return err
		}
		p.note(pl, err)
		return named(pl, err)
	})
	return p.concluded(ctx, ticket, err)
}

// concluded is what Apply returns.
func (p *Pods) concluded(ctx context.Context, ticket uint64, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shared.ticket() != ticket {
		return ErrReleased
	}
	if ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	redirecting, own := false, true
	for _, pl := range p.places {
		redirecting = redirecting || pl.applier.Engaged()
		own = own && ownTrouble(pl.err)
	}
	for _, missing := range p.missing {
		own = own && ownTrouble(missing)
		err = errors.Join(err, missing)
	}
	if err != nil && !redirecting && !own {
		return err
	}
	p.engaged = true
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPartial, err)
	}
	return nil
}

// ownTrouble says whether an error is about a single pod, whatever the node is like.
func ownTrouble(err error) bool {
	return err == nil || errors.Is(err, ErrForeign) || errors.Is(err, ErrNoListener) || errors.Is(err, netns.ErrNotFound) || errors.Is(err, netns.ErrAmbiguous) || errors.Is(err, netns.ErrGone)
}

// applyPlace makes one place hold its plan.
func (p *Pods) applyPlace(ctx context.Context, pl *place, plan *Plan, ticket uint64) error {
	a := pl.applier
	if a.holds(plan, ticket) {
		return nil
	}
	err := p.tryPlace(ctx, pl, plan, ticket)
	if errors.Is(err, ErrForeign) || errors.Is(err, netns.ErrGone) {
		// What worked until now works no more.
		return errors.Join(err, a.sources.release())
	}
	return err
}

func (p *Pods) tryPlace(ctx context.Context, pl *place, plan *Plan, ticket uint64) error {
	if err := pl.ns.Check(pl.ips); err != nil {
		return err
	}
	if !pl.applier.sources.holdsAny(ticket) {
		if err := p.ask(ctx, pl.ns, pl.listener(p.cfg.Ports.HTTP)); err != nil {
			if errors.Is(err, ErrNoListener) {
				return err
			}
			return fmt.Errorf("%w: %w", ErrUnanswered, err)
		}
	}
	p.mu.Lock()
	pl.retired = false
	p.mu.Unlock()
	return pl.applier.applyWith(ctx, plan, ticket)
}

// retire removes what is ours from a pod that is not enrolled any more and lives,
// except what connections need that were redirected.
func (p *Pods) retire(ctx context.Context, pl *place) error {
	p.mu.Lock()
	done := pl.retired
	p.mu.Unlock()
	if done {
		return nil
	}
	if err := pl.applier.rest(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pl.enrolled, pl.retired = false, true
	return nil
}

// sweep does to pods that are not in the plan, once, what retire does, should an
// agent before have left something there. That it fails holds up nobody.
func (p *Pods) sweep(ctx context.Context) {
	if p.swept {
		return
	}
	ours := map[uint64]bool{}
	for _, pl := range p.all() {
		ours[pl.ns.Inode()] = true
	}
	err := p.visit(ctx, func(ctx context.Context, ns namespace, a *Applier) error {
		if ours[ns.Inode()] {
			return nil
		}
		return a.rest(ctx)
	})
	if err != nil {
		p.log.Warn("pods not searched for what an earlier agent left", zap.Error(err))
		return
	}
	p.swept = true
}
