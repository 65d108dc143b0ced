// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/netip"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Namer names the ends of flows by what one node knows. It is immutable.
type Namer struct {
	node *model.Node
	pods map[netip.Addr]*model.Pod
}

// NewNamer makes one; node may be nil, for which nothing has a name.
func NewNamer(node *model.Node) *Namer {
	n := &Namer{node: node, pods: map[netip.Addr]*model.Pod{}}
	if node == nil {
		return n
	}
	for i := range node.Pods {
		for _, ip := range node.Pods[i].IPs {
			n.pods[ip] = &node.Pods[i]
		}
	}
	return n
}

// Name fills in what the addresses of a flow say: pod, Service, class and backend. What
// is set already, by who knows better, stays.
func (n *Namer) Name(f *Flow) {
	if n.node == nil {
		return
	}
	n.local(&f.Source)
	// A port of UDP may have the number of one of TCP, as DNS's has.
	if frontend, ok := n.node.Frontend(f.Frontend); ok && f.Protocol != "UDP" {
		f.Service = ServiceOf(frontend.Port)
		f.Class, f.ClassReason = frontend.Class.String(), frontend.ClassReason
		if f.Backend.Pod == "" {
			f.Backend.among(frontend.Backends)
		}
	}
	n.local(&f.Backend)
	for _, p := range []*Peer{&f.Source, &f.Backend} {
		if p.Pod != "" && p.Workload == "" {
			p.Workload = model.WorkloadOf(p.Pod)
		}
	}
}

// among names a peer that is one of these backends.
func (p *Peer) among(backends []model.Backend) {
	for i := range backends {
		if b := &backends[i]; b.Address == p.Address {
			p.Namespace, p.Pod, p.Node, p.Zone = b.Namespace, b.Pod, b.Node, b.Zone
			return
		}
	}
}

// local names a peer that is a pod of this node.
func (n *Namer) local(p *Peer) {
	pod := n.pods[p.Address.Addr()]
	if pod == nil || p.Pod != "" && (p.Namespace != pod.Namespace || p.Pod != pod.Name) {
		return
	}
	p.Namespace, p.Pod, p.Workload = pod.Namespace, pod.Name, pod.Workload
	p.Node, p.Zone = n.node.Name, n.node.Zone
}
