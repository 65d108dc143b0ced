// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds/server"
)

// fakeEnvoy is the fixture as an Envoy.
type fakeEnvoy struct{ *fixture }

func (e fakeEnvoy) Changed() <-chan struct{} { return e.envoy }
func (e fakeEnvoy) Publish(n *model.Node, targets []model.PodTarget) {
	e.note("publish")
	e.mu.Lock()
	defer e.mu.Unlock()
	e.published, e.targets = n, targets
	e.publications++
	e.send()
}

func (e fakeEnvoy) Status() server.Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status
}

func (e fakeEnvoy) InUse() []netip.AddrPort {
	e.mu.Lock()
	defer e.mu.Unlock()
	var used []netip.AddrPort
	for _, u := range e.uses {
		used = append(used, u.Frontend)
	}
	return used
}

func (e fakeEnvoy) Seen() map[netip.AddrPort]model.Seen {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen
}

func (e fakeEnvoy) Uses() ([]server.Use, []netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.uses, e.denied
}
