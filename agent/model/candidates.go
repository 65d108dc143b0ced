// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Candidate is an endpoint of a Service port, and whether this node uses it.
type Candidate struct {
	Backend
	Ready bool
	Used  bool
	// Why says in a few words why it is used, or not.
	Why string
}

// Candidates are all endpoints of a frontend's Service port of its address family,
// sorted by address. It reads the objects: it is for questions of people.
func (n *Node) Candidates(f *Frontend) []Candidate {
	svc := n.service(f.Port.Namespace, f.Port.Service)
	if svc == nil {
		return nil
	}
	var scratch endpointScratch
	var unread problems
	scratch.fill(n.slicesOf(svc.Namespace, svc.Name), &unread)
	list := scratch.of(f.Port.PortName, f.Address.Addr().Is6())
	policy := svc.Spec.InternalTrafficPolicy
	local := policy != nil && *policy == corev1.ServiceInternalTrafficPolicyLocal && slices.Contains(clusterIPs(svc), f.Address.Addr().String())
	r := serviceReader{nodeName: n.Name, zone: n.Zone}
	used := map[string]bool{}
	for _, b := range r.usable(slices.Clone(list), local) {
		used[b.Address.String()] = true
	}
	hints := noHints
	if !local {
		hints = r.hints(list)
	}
	out := make([]Candidate, 0, len(list))
	for i := range list {
		c := Candidate{Backend: list[i].backend(), Ready: list[i].ready}
		c.Terminating = list[i].terminating
		c.Used = used[c.Address.String()]
		c.Why = r.why(&list[i], c.Used, local, hints)
		out = append(out, c)
	}
	return out
}

// why says why a candidate is used, or not: see usable.
func (r *serviceReader) why(c *candidate, used, local bool, hints hintsUse) string {
	switch {
	case local && !r.onThisNode(c.from):
		return "not on this node, and internalTrafficPolicy is Local"
	case used && !c.ready:
		return "terminating but serving, and no other is ready"
	case used && local:
		return "ready, and on this node"
	case used && hints == nodeHints:
		return "ready, and its hints are for this node"
	case used && hints == zoneHints:
		return "ready, and its hints are for zone " + r.zone
	case used:
		return "ready"
	case c.terminating:
		return "terminating"
	case !c.ready:
		return "not ready"
	case hints == nodeHints:
		return "its hints are for other nodes"
	case hints == zoneHints:
		return "its hints are for other zones"
	}
	return "others are used"
}
