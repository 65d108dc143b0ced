// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"time"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/model"
)

const (
	// directoryPause is the least time between two directories, and directoryShare how
	// many times longer it is than making one takes: objects may change all the time.
	directoryPause, directoryShare = 200 * time.Millisecond, 100
	// backendsPause is the least time between two lists of Envoy's backends.
	backendsPause = kernelPause
)

// directory names what a Namer doesn't know: backends of Services that are bypassed, pods
// that are called by their own address, and Service ports of UDP. Nothing is made before
// it is asked for.
type directory struct {
	node    *model.Node
	next    time.Time
	entries *model.Directory
}

// name fills in what is missing in a flow.
func (d *directory) name(f *flow.Flow, node *model.Node, now time.Time) {
	noService, noPod := f.Protocol == "UDP" && f.Service.Name == "", f.Backend.Pod == ""
	if !noService && !noPod {
		return
	}
	if d.node != node && !now.Before(d.next) {
		began := time.Now()
		d.node, d.entries = node, node.Directory()
		d.next = now.Add(max(directoryPause, directoryShare*time.Since(began)))
	}
	if d.entries == nil {
		return
	}
	if port, ok := d.entries.UDP(f.Frontend); ok && noService {
		f.Service = flow.ServiceOf(port)
	}
	if b, ok := d.entries.Pod(f.Backend.Address.Addr()); ok && noPod {
		f.Backend.Namespace, f.Backend.Pod, f.Backend.Node, f.Backend.Zone = b.Namespace, b.Pod, b.Node, b.Zone
	}
}

// envoyBackends are those of the Service ports that Envoy has asked for: it may call them.
type envoyBackends struct {
	next  time.Time
	known map[netip.AddrPort]bool
}

// has says whether the address is one of them.
func (b *envoyBackends) has(at netip.AddrPort, state *State, now time.Time) bool {
	if b.known[at] || now.Before(b.next) {
		return b.known[at]
	}
	b.next, b.known = now.Add(backendsPause), map[netip.AddrPort]bool{}
	for address := range state.inUse() {
		if f, ok := state.Node.Frontend(address); ok {
			for i := range f.Backends {
				b.known[f.Backends[i].Address] = true
			}
		}
	}
	return b.known[at]
}
