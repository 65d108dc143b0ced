// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/dump"
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
	open, cancel := begin(ctx)
	defer cancel()
	return p.each(ctx, open, p.list(), func(ctx context.Context, pod *podNetns) error {
		pp, enrolled := plans[pod.UID]
		if !enrolled {
			p.mu.Lock()
			if pod.enrolled {
				pod.backoff = backoff{}
			}
			pod.enrolled, pod.drained = false, pod.drained && !pod.enrolled
			p.mu.Unlock()
			return pod.applier.DisengagePod()
		}
		return pod.applier.Withdraw(ctx, pp)
	}, withPodName)
}

// podPlans is what each located pod is to hold, as a plan of its own, by UID: of
// the families whose addresses are there.
func (p *Pods) podPlans(desired *plan.Plan) map[string]*plan.Plan {
	plans := map[string]*plan.Plan{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range desired.Pods {
		if pod := p.located[desired.Pods[i].UID]; pod != nil {
			pp := desired.Pods[i].ForAddresses(pod.present)
			plans[pod.UID] = &plan.Plan{Mode: plan.PodMode, Families: pp.Families}
			if pod.blocked != pp.Blocked {
				pod.blocked, pod.backoff = pp.Blocked, backoff{}
			}
		}
	}
	return plans
}

func withPodName(pod *podNetns, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Pod, err)
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
	open, cancel := begin(ctx)
	defer cancel()
	plans := p.podPlans(desired)
	todo, paused := p.todo(plans, ticket)
	err := p.each(ctx, open, todo, func(ctx context.Context, pod *podNetns) error {
		if wanted := plans[pod.UID]; wanted != nil {
			return p.applyPod(ctx, pod, wanted, ticket)
		}
		return p.unenrol(ctx, pod)
	}, func(pod *podNetns, err error) error {
		if errors.Is(err, apply.ErrDisengaged) || ctx.Err() != nil {
			// Not a fault of the pod's.
			return err
		}
		p.note(pod, err)
		return withPodName(pod, err)
	})
	p.sweep(ctx, open)
	return p.result(ctx, ticket, errors.Join(paused, err))
}

// todo are the located pods in which there is something to do, now; the error joins
// those of pods that are to be tried again later.
func (p *Pods) todo(plans map[string]*plan.Plan, ticket uint64) (todo []*podNetns, paused error) {
	for _, pod := range p.list() {
		wanted := plans[pod.UID]
		if before := p.pausing(pod); before != nil {
			paused = errors.Join(paused, withPodName(pod, before))
		} else if wanted != nil && pod.applier.Holds(wanted, ticket) {
			p.note(pod, nil)
		} else {
			todo = append(todo, pod)
		}
	}
	return todo, paused
}

// pausing is how a pod failed that is not to be tried again yet; nil for another.
func (p *Pods) pausing(pod *podNetns) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pod.backoff.due(p.now()) {
		return nil
	}
	return pod.err
}

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
	for _, pod := range p.located {
		redirecting = redirecting || pod.applier.Engaged()
		own = own && isPodFault(pod.err)
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
	faults := []error{
		apply.ErrForeignRules, ErrNoListener, ErrPortTaken, dump.ErrTooMuch, netns.ErrNotFound, netns.ErrAmbiguous, netns.ErrGone,
	}
	return err == nil || slices.ContainsFunc(faults, func(f error) bool { return errors.Is(err, f) })
}

func (p *Pods) applyPod(ctx context.Context, pod *podNetns, desired *plan.Plan, ticket uint64) error {
	err := p.tryPod(ctx, pod, desired, ticket)
	if errors.Is(err, apply.ErrForeignRules) || errors.Is(err, dump.ErrTooMuch) || errors.Is(err, netns.ErrGone) {
		// What worked until now works no more.
		return errors.Join(err, pod.applier.DisengagePod())
	}
	return err
}

func (p *Pods) tryPod(ctx context.Context, pod *podNetns, desired *plan.Plan, ticket uint64) error {
	if err := pod.ns.Check(pod.ips); err != nil {
		return err
	}
	if !pod.applier.EngagedSince(ticket) {
		if err := p.blocked(ctx, pod); err != nil {
			return err
		}
		if err := p.ask(ctx, pod.ns, pod.listener(p.cfg.Ports.HTTP)); err != nil {
			return fmt.Errorf("%w: %w", ErrUnanswered, err)
		}
	}
	p.mu.Lock()
	pod.drained = false
	p.mu.Unlock()
	return pod.applier.ApplyWith(ctx, desired, ticket)
}

// unenrol removes what is ours from a pod that is no longer enrolled but runs,
// except what its redirected connections need: that once it has been released.
func (p *Pods) unenrol(ctx context.Context, pod *podNetns) error {
	p.mu.Lock()
	remove, done := (*apply.Applier).Drain, pod.drained
	if pod.released {
		remove, done = (*apply.Applier).Cleanup, pod.cleaned
	}
	p.mu.Unlock()
	if done {
		return nil
	}
	if err := remove(pod.applier, ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pod.enrolled, pod.drained, pod.cleaned = false, true, pod.released
	return nil
}

// Drift compares the plan, which Apply has put in place, with what the kernel
// holds of it in the pods that are redirected, and returns every difference; the
// next Apply mends them, or, of pods that made rules of their own, stops
// redirecting. A pod with too much to look at is redirected no more. The members of
// large sets are listed in one pod each time, in turn, and counted in the others.
func (p *Pods) Drift(ctx context.Context, desired *plan.Plan) ([]apply.Drift, error) {
	p.long.Lock()
	defer p.long.Unlock()
	pods := p.list()
	if len(pods) == 0 {
		return nil, nil
	}
	p.checks++
	full := pods[p.checks%len(pods)]
	plans := p.podPlans(desired)
	found := map[*podNetns][]apply.Drift{}
	var mu sync.Mutex
	open, cancel := begin(ctx)
	defer cancel()
	err := p.each(ctx, open, pods, func(ctx context.Context, pod *podNetns) error {
		wanted := plans[pod.UID]
		if wanted == nil || !pod.applier.Engaged() {
			return nil
		}
		drifts, err := pod.applier.DriftWith(ctx, wanted, pod == full)
		if errors.Is(err, dump.ErrTooMuch) {
			err = errors.Join(err, pod.applier.DisengagePod())
			p.note(pod, err)
		}
		mu.Lock()
		defer mu.Unlock()
		found[pod] = drifts
		return err
	}, withPodName)
	var all []apply.Drift
	for _, pod := range pods {
		for _, d := range found[pod] {
			d.Name = pod.Namespace + "/" + pod.Pod + ": " + d.Name
			all = append(all, d)
		}
	}
	return all, err
}
