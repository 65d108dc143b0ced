// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// Withdraw removes what the plan has no more: members of the sets, and from
// redirection the pods that are not enrolled any more. It adds nothing and never
// touches rules, so it is safe at any time.
func (p *Pods) Withdraw(ctx context.Context, desired *plan.Plan) error {
	p.long.Lock()
	defer p.long.Unlock()
	defer p.group.Remember()()
	plans := p.podPlans(desired)
	return p.each(ctx, p.list(), func(ctx context.Context, pl *podNetns) error {
		pp, enrolled := plans[pl.UID]
		if !enrolled {
			p.mu.Lock()
			pl.enrolled, pl.drained = false, pl.drained && !pl.enrolled
			p.mu.Unlock()
			return withPodName(pl, pl.applier.DisengagePod())
		}
		return withPodName(pl, pl.applier.Withdraw(ctx, pp))
	})
}

// podPlans is what each located pod is to hold, as a plan of its own, by UID: of
// the families whose addresses are there.
func (p *Pods) podPlans(desired *plan.Plan) map[string]*plan.Plan {
	plans := map[string]*plan.Plan{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range desired.Pods {
		if pl := p.located[desired.Pods[i].UID]; pl != nil {
			pp := desired.Pods[i].ForAddresses(pl.present)
			plans[pl.UID] = &plan.Plan{Mode: plan.PodMode, Families: pp.Families}
			if pl.blocked != pp.Blocked {
				pl.blocked, pl.backoff = pp.Blocked, backoff{}
			}
		}
	}
	return plans
}

func withPodName(pl *podNetns, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pod %s/%s: %w", pl.Namespace, pl.Pod, err)
}

// Apply makes all located pods hold the plan, and pods redirected that are not yet, if
// Envoy answers in them. A pod in which all holds already costs nothing. Of pods
// that are not enrolled any more it removes rules and sets. The error wraps
// ErrPartial when it is about pods that can't be redirected while others are, or
// are only missing something of their own; it is ErrDisengaged when Disengage was
// called after Apply began. A pod that failed is tried again ever more rarely, and
// an Apply that has taken long leaves pods to the next: see Pending.
func (p *Pods) Apply(ctx context.Context, desired *plan.Plan) error {
	p.long.Lock()
	defer p.long.Unlock()
	if p.cfg.Backend == netfilter.AutoBackend {
		return apply.ErrBackendUndecided
	}
	defer p.group.Remember()()
	// One for all pods, before any of them: a Disengage from now on is for all.
	ticket := p.group.Ticket()
	p.sweep(ctx)
	plans := p.podPlans(desired)
	enough := p.now().Add(applyBudget)
	err := p.each(ctx, p.list(), func(ctx context.Context, pl *podNetns) error {
		if before := p.pausing(pl); before != nil {
			return withPodName(pl, before)
		}
		err, wanted := errLater, plans[pl.UID]
		switch late := p.now().After(enough); {
		case wanted != nil && (!late || pl.applier.Holds(wanted, ticket)):
			err = p.applyPod(ctx, pl, wanted, ticket)
		case wanted == nil && !late:
			err = p.unenrol(ctx, pl)
		}
		if errors.Is(err, apply.ErrDisengaged) || ctx.Err() != nil {
			// Not a fault of the pod's.
			return err
		}
		p.note(pl, err)
		return withPodName(pl, err)
	})
	return p.result(ctx, ticket, err)
}

// pausing is how a pod failed that is not to be tried again yet; nil for another.
func (p *Pods) pausing(pl *podNetns) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pl.backoff.due(p.now()) {
		return nil
	}
	return pl.err
}

// result is what Apply returns.
func (p *Pods) result(ctx context.Context, ticket uint64, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.group.Ticket() != ticket {
		return apply.ErrDisengaged
	}
	if ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	redirecting, own := false, true
	for _, pl := range p.located {
		redirecting = redirecting || pl.applier.Engaged()
		own = own && isPodFault(pl.err)
	}
	for _, missing := range p.missing {
		own = own && isPodFault(missing.err)
		err = errors.Join(err, missing.err)
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

// isPodFault says whether an error is about a single pod, whatever the node is like.
func isPodFault(err error) bool {
	return err == nil || errors.Is(err, apply.ErrForeignRules) || errors.Is(err, ErrNoListener) || errors.Is(err, netns.ErrNotFound) || errors.Is(err, netns.ErrAmbiguous) || errors.Is(err, netns.ErrGone) ||
		errors.Is(err, iptables.ErrTooMuch)
}

// applyPod makes one pod hold its plan.
func (p *Pods) applyPod(ctx context.Context, pl *podNetns, desired *plan.Plan, ticket uint64) error {
	a := pl.applier
	if a.Holds(desired, ticket) {
		return nil
	}
	err := p.tryPod(ctx, pl, desired, ticket)
	if errors.Is(err, apply.ErrForeignRules) || errors.Is(err, iptables.ErrTooMuch) || errors.Is(err, netns.ErrGone) {
		// What worked until now works no more.
		return errors.Join(err, a.DisengagePod())
	}
	return err
}

func (p *Pods) tryPod(ctx context.Context, pl *podNetns, desired *plan.Plan, ticket uint64) error {
	if err := pl.ns.Check(pl.ips); err != nil {
		return err
	}
	if !pl.applier.EngagedSince(ticket) {
		if pl.blocked != "" {
			return fmt.Errorf("%w: %s", ErrNoListener, pl.blocked)
		}
		if err := p.ask(ctx, pl.ns, pl.listener(p.cfg.Ports.HTTP)); err != nil {
			return fmt.Errorf("%w: %w", ErrUnanswered, err)
		}
	}
	p.mu.Lock()
	pl.drained = false
	p.mu.Unlock()
	return pl.applier.ApplyWith(ctx, desired, ticket)
}

// unenrol removes what is ours from a pod that is no longer enrolled but runs,
// except what its redirected connections need.
func (p *Pods) unenrol(ctx context.Context, pl *podNetns) error {
	p.mu.Lock()
	done := pl.drained
	p.mu.Unlock()
	if done {
		return nil
	}
	if err := pl.applier.Drain(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pl.enrolled, pl.drained = false, true
	return nil
}

// sweep does once, to pods that are not in the plan, what unenrol does: an earlier
// agent may have left something there. That it fails holds up nobody.
func (p *Pods) sweep(ctx context.Context) {
	if p.swept {
		return
	}
	ours := map[uint64]bool{}
	for _, pl := range p.list() {
		ours[pl.ns.Inode()] = true
	}
	err := p.visit(ctx, func(ctx context.Context, ns namespace, a *apply.Applier) error {
		if ours[ns.Inode()] {
			return nil
		}
		return a.Drain(ctx)
	})
	if err != nil {
		p.log.Warn("pods not searched for what an earlier agent left", zap.Error(err))
		return
	}
	p.swept = true
}
