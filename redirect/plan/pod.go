// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
)

// compilePods is Compile for PodMode. What is the same in all pods is made
// once, and shared: a hundred pods are no more work than one.
func compilePods(node *model.Node, cfg Config) *Plan {
	p := &Plan{Mode: PodMode}
	var shared []FamilyPlan
	for _, f := range family.All() {
		if slices.Contains(cfg.Families, f) {
			shared = append(shared, podFamily(node, cfg, f))
		}
	}
	for i := range node.Pods {
		pod := &node.Pods[i]
		p.LivePods = append(p.LivePods, LivePod{Name: pod.Namespace + "/" + pod.Name, UID: uid(pod), IPs: pod.IPs})
		if !pod.Enrolled {
			continue
		}
		if pp := compilePod(pod, shared); len(pp.Families) > 0 {
			p.Pods = append(p.Pods, pp)
		}
	}
	slices.SortFunc(p.LivePods, func(x, y LivePod) int { return cmp.Compare(x.UID, y.UID) })
	slices.SortFunc(p.Pods, func(x, y PodPlan) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Pod, y.Pod), cmp.Compare(x.UID, y.UID))
	})
	return p
}

// podFamily is all of a family but the pod's own addresses.
func podFamily(node *model.Node, cfg Config, f family.Family) FamilyPlan {
	b := ruleBook{cfg: cfg, family: f}
	fp := FamilyPlan{
		Family:    f,
		Address:   cfg.Address(f),
		Frontends: frontendSets(node, f),
		Pods:      podSet(cfg, f, "the pod's own addresses"),
	}
	fp.Chains, fp.Jumps = b.pod()
	return fp
}

// compilePod is what one pod's namespace must hold, for the families of which
// the pod has an address.
func compilePod(pod *model.Pod, shared []FamilyPlan) PodPlan {
	pp := PodPlan{Namespace: pod.Namespace, Pod: pod.Name, UID: uid(pod), Terminating: pod.Terminating}
	for _, fp := range shared {
		fp.Pods.Members = sorted(members(pod.IPs, fp.Family))
		if len(fp.Pods.Members) == 0 {
			continue
		}
		for _, m := range fp.Pods.Members {
			pp.IPs = append(pp.IPs, m.Addr())
		}
		pp.Families = append(pp.Families, fp)
	}
	return pp
}

// uid tells pods apart.
func uid(pod *model.Pod) string { return cmp.Or(pod.UID, pod.Namespace+"/"+pod.Name) }

// Family is the pod's part of one family; false when it has none.
func (p *PodPlan) Family(f family.Family) (FamilyPlan, bool) {
	i := slices.IndexFunc(p.Families, func(fp FamilyPlan) bool { return fp.Family == f })
	if i < 0 {
		return FamilyPlan{}, false
	}
	return p.Families[i], true
}

// ForAddresses is the pod's plan reduced to these of its addresses, and to the
// families of which one is left.
func (p *PodPlan) ForAddresses(held []netip.Addr) PodPlan {
	q := *p
	q.IPs, q.Families = nil, nil
	for _, fp := range p.Families {
		fp.Pods.Members = slices.DeleteFunc(slices.Clone(fp.Pods.Members), func(m netip.AddrPort) bool { return !slices.Contains(held, m.Addr()) })
		if len(fp.Pods.Members) == 0 {
			continue
		}
		for _, m := range fp.Pods.Members {
			q.IPs = append(q.IPs, m.Addr())
		}
		q.Families = append(q.Families, fp)
	}
	return q
}
