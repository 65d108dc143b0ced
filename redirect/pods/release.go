// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/connections"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// CountLeaving counts the redirected connections of pods that are to have back the ports
// on which Envoy listens in them: those that are not enrolled any more, and those that
// listen on such a port themselves. A pod without any is released. Envoy would end the
// connections of a listener that it loses. It may be called at any time, and takes as
// long as it takes to list connections.
func (p *Pods) CountLeaving() {
	leaving := map[*podNetns]int{}
	p.mu.Lock()
	for _, pod := range p.located {
		if pod.leaves() {
			leaving[pod] = pod.enrolments
		}
	}
	p.mu.Unlock()
	_ = parallel(slices.Collect(maps.Keys(leaving)), func(pod *podNetns) error {
		n, err := p.count(pod.ns)
		p.noteCount(pod, leaving[pod], n, err)
		return nil
	})
}

// Release says whether CountLeaving has released pods, so that Targets has changed, since
// it was last called.
func (p *Pods) Release() (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed, p.released = p.released, false
	return changed
}

// leaves says whether the pod is to be released once it has no redirected connections.
// The caller holds the lock.
func (pod *podNetns) leaves() bool {
	return !pod.released && !pod.held && (pod.taken.IsValid() || !pod.enrolled && pod.drained)
}

// noteCount notes how many of a pod's connections are redirected, which releases it if
// none is, unless it was enrolled anew since. A namespace that is gone is for Relocate.
func (p *Pods) noteCount(pod *podNetns, enrolments, n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !pod.leaves() || pod.enrolments != enrolments {
		return
	}
	log := p.log.With(zap.String("pod", pod.Namespace+"/"+pod.Pod))
	if err != nil && pod.countErr == nil && !errors.Is(err, netns.ErrGone) {
		log.Warn("can't tell whether the pod has redirected connections: Envoy goes on listening in it", zap.Error(err))
	}
	pod.connections, pod.countErr = n, err
	if n > 0 || err != nil {
		return
	}
	pod.released, pod.cleaned, pod.backoff = true, false, backoff{}
	p.released = true
	log.Info("no connection of the pod is redirected any more: Envoy's ports in it are given back")
}

// leaving is what holds up the release of a pod that is not enrolled. The caller holds
// the lock.
func (pod *podNetns) leaving() string {
	why := "not enrolled any more: connections it has go on"
	switch {
	case pod.countErr != nil:
		why += fmt.Sprintf(", and Envoy listens in the pod as nobody can count them: %v", pod.countErr)
	case pod.connections > 0:
		why += fmt.Sprintf(", %d of them, and Envoy listens in the pod until they end", pod.connections)
	}
	return why
}

// redirectedTo returns what counts the connections in a namespace that are redirected
// to these ports of it.
func redirectedTo(ports []uint16) func(namespace) (int, error) {
	return func(ns namespace) (n int, err error) {
		err = ns.Do(func() (err error) {
			n, err = connections.Accepted(ports)
			return err
		})
		return n, err
	}
}

// blocked says why a pod must not be engaged: Envoy can't listen in it, now or for
// good.
func (p *Pods) blocked(ctx context.Context, pod *podNetns) error {
	if pod.blocked != "" && !pod.taken.IsValid() {
		at := p.occupied(ctx, pod)
		p.mu.Lock()
		pod.taken = at
		p.mu.Unlock()
	}
	switch {
	case pod.taken.IsValid():
		return fmt.Errorf("%w: %s", ErrPortTaken, pod.taken)
	case pod.blocked != "":
		return fmt.Errorf("%w: %s", ErrNoListener, pod.blocked)
	}
	return nil
}

// occupied is one of Envoy's ports in a pod where another than Envoy listens; none if
// there is no such port.
func (p *Pods) occupied(ctx context.Context, pod *podNetns) netip.AddrPort {
	var all []netip.AddrPort
	for _, port := range p.cfg.Ports.All() {
		for _, f := range family.All() {
			if family.Pick(f, pod.V4, pod.V6) {
				all = append(all, netip.AddrPortFrom(f.Loopback(), port))
			}
		}
	}
	var mu sync.Mutex
	var taken netip.AddrPort
	_ = parallel(all, func(at netip.AddrPort) error {
		if err := p.ask(ctx, pod.ns, at); errors.Is(err, ErrSilent) && ctx.Err() == nil {
			mu.Lock()
			defer mu.Unlock()
			if !taken.IsValid() || at.Compare(taken) < 0 {
				taken = at
			}
		}
		return nil
	})
	return taken
}
