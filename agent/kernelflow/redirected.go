// SPDX-License-Identifier: Apache-2.0

package kernelflow

import (
	"net/netip"
	"slices"

	"github.com/nodevoy/nodevoy/redirect/conntrack"
)

// Redirected says which of the connections that the kernel tracks lead to Envoy or come
// from it: Envoy reports them itself, and knows more of them.
type Redirected struct {
	// Listeners are the addresses that connections are sent to in host mode.
	Listeners []netip.Addr
	// Pods are the addresses of pods in which redirection happens, in pod mode: from
	// these, Envoy calls backends with the pod's own address.
	Pods map[netip.Addr]bool
	// Backend says whether Envoy may call the address for these pods.
	Backend func(netip.AddrPort) bool
}

// Has says whether a connection is one of them. In pod mode, the mark of Envoy's sockets
// doesn't leave the pod's network namespace. So what goes straight from a redirected pod
// to a backend that Envoy has is taken for Envoy's, also if the pod called it itself.
func (r *Redirected) Has(e *conntrack.Entry) bool {
	if e.Protocol != conntrack.TCP {
		return false
	}
	return slices.Contains(r.Listeners, e.Answers.Addr()) ||
		e.To == e.Answers && r.Pods[e.From.Addr()] && r.Backend(e.To)
}
