// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
)

// compilePlaces is Compile for PodMode. What is the same in all places is made
// once, and shared: a hundred pods are no more work than one.
func compilePlaces(node *model.Node, cfg Config) *Plan {
	p := &Plan{Mode: PodMode}
	var shared []FamilyPlan
	for _, f := range family.All() {
		if slices.Contains(cfg.Families, f) {
			shared = append(shared, insideFamily(node, cfg, f))
		}
	}
	for i := range node.Pods {
		pod := &node.Pods[i]
		p.Living = append(p.Living, uid(pod))
		if !pod.Enrolled {
			continue
		}
		if place := compilePlace(pod, shared); len(place.Families) > 0 {
			p.Places = append(p.Places, place)
		}
	}
	slices.Sort(p.Living)
	slices.SortFunc(p.Places, func(x, y PlacePlan) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Pod, y.Pod), cmp.Compare(x.UID, y.UID))
	})
	return p
}

// insideFamily is all of a family but the pod's own addresses.
func insideFamily(node *model.Node, cfg Config, f family.Family) FamilyPlan {
	b := ruleBook{cfg: cfg, family: f}
	fp := FamilyPlan{
		Family:    f,
		Address:   cfg.address(f),
		Frontends: frontendSets(node, f),
		Pods:      podSet(cfg, f, "the pod's own addresses"),
	}
	fp.Chains, fp.Jumps = b.inside()
	return fp
}

// compilePlace is what one pod's namespace must hold, for the families of which
// the pod has an address.
func compilePlace(pod *model.Pod, shared []FamilyPlan) PlacePlan {
	place := PlacePlan{Namespace: pod.Namespace, Pod: pod.Name, UID: uid(pod)}
	for _, fp := range shared {
		fp.Pods.Members = sorted(members(pod.IPs, fp.Family))
		if len(fp.Pods.Members) == 0 {
			continue
		}
		for _, m := range fp.Pods.Members {
			place.IPs = append(place.IPs, m.Addr())
		}
		place.Families = append(place.Families, fp)
	}
	return place
}

// uid tells pods apart.
func uid(pod *model.Pod) string { return cmp.Or(pod.UID, pod.Namespace+"/"+pod.Name) }

// family is the place's part of one family; false when it has none.
func (p *PlacePlan) family(f family.Family) (FamilyPlan, bool) {
	i := slices.IndexFunc(p.Families, func(fp FamilyPlan) bool { return fp.Family == f })
	if i < 0 {
		return FamilyPlan{}, false
	}
	return p.Families[i], true
}

// only is the place with those of its families that have one of these addresses,
// and none of its other addresses.
func (p *PlacePlan) only(held []netip.Addr) PlacePlan {
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
