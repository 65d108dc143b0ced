// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/connections"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// releasePause is the least time between two looks at the connections of pods that
// are to be released, and releaseShare how many times longer the pause is than a look
// takes: a pod may keep its connections for days.
const releasePause, releaseShare = time.Second, 20

// Release finds the pods that may have the ports back on which Envoy listens in them:
// those that are not enrolled any more, and those that listen on such a port
// themselves, once none of their connections is redirected. It says whether Targets
// has changed. Envoy would end the connections of a listener that it loses.
func (p *Pods) Release() (changed bool) {
	p.long.Lock()
	defer p.long.Unlock()
	began := p.now()
	var leaving []*podNetns
	p.mu.Lock()
	if !began.Before(p.releases) {
		for _, pod := range p.located {
			if !pod.released && !pod.held && (pod.taken.IsValid() || !pod.enrolled && pod.drained) {
				leaving = append(leaving, pod)
			}
		}
	}
	p.mu.Unlock()
	if len(leaving) == 0 {
		return false
	}
	var mu sync.Mutex
	_ = parallel(leaving, func(pod *podNetns) error {
		n, err := p.count(pod.ns)
		mu.Lock()
		defer mu.Unlock()
		changed = p.noteCount(pod, n, err) || changed
		return nil
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.releases = now.Add(max(releasePause, releaseShare*now.Sub(began)))
	return changed
}

// noteCount notes how many of a pod's connections are redirected, and says whether it
// is released by that. A namespace that is gone is for Relocate.
func (p *Pods) noteCount(pod *podNetns, n int, err error) (released bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	log := p.log.With(zap.String("pod", pod.Namespace+"/"+pod.Pod))
	if err != nil && pod.countErr == nil && !errors.Is(err, netns.ErrGone) {
		log.Warn("can't tell whether the pod has redirected connections: Envoy goes on listening in it", zap.Error(err))
	}
	pod.connections, pod.countErr = n, err
	if n > 0 || err != nil {
		return false
	}
	pod.released, pod.cleaned, pod.backoff = true, false, backoff{}
	log.Info("no connection of the pod is redirected any more: Envoy's ports in it are given back")
	return true
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
// to these ports of it. To its own loopback addresses none is.
func redirectedTo(ports model.Ports) func(namespace) (int, error) {
	f := connections.Filter{Ports: ports.All()}
	for _, one := range family.All() {
		f.Listeners = append(f.Listeners, one.Loopback())
	}
	return func(ns namespace) (n int, err error) {
		err = ns.Do(func() error {
			return connections.List(f, func(to netip.AddrPort, live bool) {
				if live && !to.Addr().IsLoopback() {
					n++
				}
			})
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
