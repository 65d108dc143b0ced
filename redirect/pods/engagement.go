// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/apply"
)

// Disengage stops redirecting new connections of all pods at once; connections that
// exist go on. An Apply under way engages no pod any more: only one that begins
// later does. It is for any goroutine, at any time, and takes a few messages to
// the kernel for each pod.
func (p *Pods) Disengage() error {
	p.mu.Lock()
	number := p.group.Disengage()
	p.engaged = false
	p.mu.Unlock()
	return parallel(p.list(), func(pod *podNetns) error { return withPodName(pod, pod.applier.DisengageBefore(number)) })
}

// Refresh begins the timeouts of all redirected pods anew: call it at least every
// third of the timeout, while Envoy is known to work. ErrDisengaged when no Apply
// has ended since the last Disengage. A pod that fails is applied anew by the next
// Apply.
func (p *Pods) Refresh(ctx context.Context) error {
	if !p.Engaged() {
		return apply.ErrDisengaged
	}
	return parallel(p.list(), func(pod *podNetns) error {
		err := pod.applier.Refresh(ctx)
		if err == nil || errors.Is(err, apply.ErrDisengaged) {
			return nil
		}
		return withPodName(pod, errors.Join(err, pod.applier.DisengagePod()))
	})
}

// Engaged says whether an Apply has come to its end since the last Disengage, and
// pods are redirected as long as Refresh is called.
func (p *Pods) Engaged() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.engaged
}

// Pending says whether an enrolled pod is not redirected as it should be and due to
// be tried again, or something that an earlier agent left may be removed, so that
// another Apply is worth a try. A pod that isn't found is not meant: see SearchDue.
func (p *Pods) Pending() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, pod := range p.located {
		lacks := pod.enrolled && (pod.err != nil || !pod.applier.Engaged()) || !pod.enrolled && (!pod.drained || pod.released && !pod.cleaned)
		if lacks && pod.backoff.due(now) {
			return true
		}
	}
	return p.sweeps.due(now)
}

// SearchDue says whether a pod that was not found is due to be looked for again.
func (p *Pods) SearchDue() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, m := range p.missing {
		if m.backoff.due(now) {
			return true
		}
	}
	return false
}

// askAttempts is how many pods a single Ask tries at most.
const askAttempts = 3

// Ask tries Envoy's listener in one of the pods, another with each call, the
// redirected ones first; nil when there is none to ask. A redirected pod in which
// Envoy doesn't answer is redirected no more, and another is asked, so that the
// error means Envoy and not a pod.
func (p *Pods) Ask(ctx context.Context) error {
	var failed []candidate
	for _, at := range p.candidates() {
		err := p.ask(ctx, at.ns, at.listener)
		if err == nil {
			return p.disengageFailed(failed)
		}
		// A pod that is going takes its listener along.
		if at.ns.Check(at.ips) == nil {
			at.err = fmt.Errorf("%w: %w", ErrUnanswered, err)
			failed = append(failed, at)
		}
	}
	var errs []error
	for _, at := range failed {
		errs = append(errs, withPodName(at.podNetns, at.err))
	}
	return errors.Join(errs...)
}

type candidate struct {
	*podNetns
	listener netip.AddrPort
	ips      []netip.Addr
	err      error
}

func (p *Pods) candidates() []candidate {
	pods := p.list()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	var redirected, others []candidate
	for i := range pods {
		pod := pods[(i+p.asked)%len(pods)]
		at := candidate{podNetns: pod, listener: pod.listener(p.cfg.Ports.HTTP), ips: pod.ips}
		switch {
		case pod.blocked != "" || pod.taken.IsValid():
			// Where Envoy can't listen it is not Envoy that fails.
		case pod.applier.Engaged():
			redirected = append(redirected, at)
		case pod.enrolled:
			others = append(others, at)
		}
	}
	redirected = append(redirected, others...)
	return redirected[:min(len(redirected), askAttempts)]
}

// disengageFailed stops redirecting pods in which Envoy doesn't answer though it does in
// another.
func (p *Pods) disengageFailed(failed []candidate) error {
	var errs []error
	for _, at := range failed {
		if !at.applier.Engaged() {
			continue
		}
		p.log.Warn("pod not redirected any more", zap.String("pod", at.Namespace+"/"+at.Pod), zap.Error(at.err))
		p.note(at.podNetns, at.err)
		errs = append(errs, withPodName(at.podNetns, at.applier.DisengagePod()))
	}
	return errors.Join(errs...)
}
