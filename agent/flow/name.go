// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/netip"
	"strconv"

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

// Pod is the pod of this node that has the address; nil if none has.
func (n *Namer) Pod(ip netip.Addr) *model.Pod { return n.pods[ip] }

// Name fills in what the addresses of a flow say: pod, Service, class and backend. What
// is set already, by who knows better, stays.
func (n *Namer) Name(f *Flow) {
	if n.node == nil {
		return
	}
	n.local(&f.Source)
	// A port of UDP may have the number of one of TCP, as DNS's has.
	if frontend, ok := n.node.Frontend(f.Frontend); ok && f.Protocol != "UDP" {
		port := frontend.Port.PortName
		if port == "" {
			port = strconv.Itoa(int(frontend.Port.Port))
		}
		f.Service = Service{Namespace: frontend.Port.Namespace, Name: frontend.Port.Service, Port: port}
		f.Class, f.ClassReason = frontend.Class.String(), frontend.ClassReason
		for i := range frontend.Backends {
			if b := &frontend.Backends[i]; b.Address == f.Backend.Address && f.Backend.Pod == "" {
				f.Backend.Namespace, f.Backend.Pod, f.Backend.Node, f.Backend.Zone = b.Namespace, b.Pod, b.Node, b.Zone
			}
		}
	}
	n.local(&f.Backend)
	for _, p := range []*Peer{&f.Source, &f.Backend} {
		if p.Pod != "" && p.Workload == "" {
			p.Workload = model.WorkloadOf(p.Pod)
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
