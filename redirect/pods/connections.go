// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"errors"
	"net/netip"

	"github.com/nodevoy/nodevoy/redirect/connections"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// Connections calls found, of several pods at once, with the destination of each
// connection of a located pod that is redirected: see connections.List. An error means
// that there may be others. It may be called at any time.
func (p *Pods) Connections(f connections.Filter, found func(to netip.AddrPort, live bool)) error {
	return parallel(p.list(), func(pod *podNetns) error {
		err := pod.ns.Do(func() error { return connections.List(f, found) })
		if errors.Is(err, netns.ErrGone) {
			return nil // And its connections.
		}
		return withPodName(pod, err)
	})
}

// Enter calls fn in the network namespace of the located pod with this UID: see
// netns.Namespace.Do. netns.ErrNotFound if it is not located. It may be called at any
// time.
func (p *Pods) Enter(uid string, fn func() error) error {
	p.mu.Lock()
	pod := p.located[uid]
	p.mu.Unlock()
	if pod == nil {
		return netns.ErrNotFound
	}
	return withPodName(pod, pod.ns.Do(fn))
}
