// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Release stops redirecting new connections of all pods at once; connections that
// exist go on. An Apply under way engages no pod any more: only one that begins
// later does. It is for any goroutine, at any time, and takes a few messages to
// the kernel for each pod.
func (p *Pods) Release() error {
	p.mu.Lock()
	number := p.shared.releases.Add(1)
	p.engaged = false
	p.mu.Unlock()
	places := p.all()
	errs := make([]error, len(places))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, pl := range places {
		g.Go(func() error {
			errs[i] = named(pl, pl.applier.sources.releaseOf(number))
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

// Refresh begins the timeouts of all redirected pods anew: call it at least every
// third of the timeout, while Envoy is known to work. ErrReleased when no Apply
// has ended since the last Release. A pod that fails is applied anew by the next
// Apply.
func (p *Pods) Refresh(context.Context) error {
	if !p.Engaged() {
		return ErrReleased
	}
	var errs []error
	for _, pl := range p.all() {
		if _, err := pl.applier.sources.refresh(); err != nil {
			errs = append(errs, named(pl, errors.Join(err, pl.applier.sources.release())))
		}
	}
	return errors.Join(errs...)
}

// Engaged says whether an Apply has come to its end since the last Release, and
// pods are redirected as long as Refresh is called.
func (p *Pods) Engaged() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.engaged
}

// Pending says whether an enrolled pod is not redirected as it should be, so that
// another Apply is worth a try. A pod that isn't found is not meant: see Relocate.
func (p *Pods) Pending() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pl := range p.places {
		if pl.enrolled && (pl.err != nil || !pl.applier.Engaged()) || !pl.enrolled && !pl.retired {
			return true
		}
	}
	return false
}

// tries is how many pods a single Ask tries at most.
const tries = 3

// Ask tries Envoy's listener in one of the pods, another with each call, the
// redirected ones first; nil when there is none to ask. A redirected pod in which
// Envoy doesn't answer is redirected no more, and another is asked, so that the
// error means Envoy and not a pod.
func (p *Pods) Ask(ctx context.Context) error {
	var failed []asked
	for _, at := range p.turn() {
		err := p.ask(ctx, at.ns, at.listener)
		if err == nil {
			return p.giveUp(failed)
		}
		// A pod that is going takes its listener along, and in one where Envoy
		// can't listen it is not Envoy that fails.
		if !errors.Is(err, ErrNoListener) && at.ns.Check(at.ips) == nil {
			at.err = fmt.Errorf("%w: %w", ErrUnanswered, err)
			failed = append(failed, at)
		}
	}
	var errs []error
	for _, at := range failed {
		errs = append(errs, named(at.place, at.err))
	}
	return errors.Join(errs...)
}

// asked is a place as it is asked.
type asked struct {
	*place
	listener netip.AddrPort
	ips      []netip.Addr
	err      error
}

// turn is whom to ask now.
func (p *Pods) turn() []asked {
	places := p.all()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	var redirected, others []asked
	for i := range places {
		pl := places[(i+p.asked)%len(places)]
		at := asked{place: pl, listener: pl.listener(p.cfg.Ports.HTTP), ips: pl.ips}
		switch {
		case pl.applier.Engaged():
			redirected = append(redirected, at)
		case pl.enrolled:
			others = append(others, at)
		}
	}
	redirected = append(redirected, others...)
	return redirected[:min(len(redirected), tries)]
}

// giveUp stops redirecting pods in which Envoy doesn't answer though it does in
// another.
func (p *Pods) giveUp(failed []asked) error {
	var errs []error
	for _, at := range failed {
		if !at.applier.Engaged() {
			continue
		}
		p.log.Warn("pod not redirected any more", zap.String("pod", at.Namespace+"/"+at.Pod), zap.Error(at.err))
		p.note(at.place, at.err)
		errs = append(errs, named(at.place, at.applier.sources.release()))
	}
	return errors.Join(errs...)
}
