// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// MaxMembers bounds a set. Memory grows only with members, so it is far above
// any cluster; ipset's own default of 65,536 is not.
const MaxMembers = 1 << 18

// fullTime is how long connections of a pod at its limit are left alone without
// being counted. The kernel walks all that it has counted at each new one, and
// keeps counting those that it leaves alone: a pod with 20,000 could make it spend
// its time so. A second is the shortest that a set knows.
const fullTime = time.Second

// Compile says what the kernel must hold so that node's enrolled pods are
// redirected. It is pure, and cfg must be valid. A mode that is still "auto"
// counts as host, and a mechanism as dnat.
func Compile(node *model.Node, cfg Config) *Plan {
	if cfg.Mode == PodMode {
		return compilePods(node, cfg)
	}
	p := &Plan{Mode: HostMode, Mechanism: cfg.Mechanism}
	if p.Mechanism != TPROXY {
		p.Mechanism = DNAT
	}
	p.Families = compileFamilies(node, cfg)
	for i := range p.Families {
		fp := &p.Families[i]
		for _, pod := range node.Pods {
			if pod.Enrolled {
				fp.Pods.Members = append(fp.Pods.Members, members(pod.IPs, fp.Family)...)
			}
		}
		fp.Pods.Members = sorted(fp.Pods.Members)
	}
	return p
}

// compileFamilies is all of each family but the pods' addresses.
func compileFamilies(node *model.Node, cfg Config) []FamilyPlan {
	what := "enrolled pods"
	if cfg.Mode == PodMode {
		what = "the pod's own addresses"
	}
	var families []FamilyPlan
	for _, f := range family.All() {
		if !slices.Contains(cfg.Families, f) {
			continue
		}
		fp := FamilyPlan{Family: f, Address: cfg.Address(f), Frontends: frontendSets(node, f), Pods: podSet(cfg, f, what)}
		if cfg.counts() {
			fp.Full = fullSet(f)
		}
		b := ruleBook{cfg: cfg, family: f}
		switch {
		case cfg.Mode == PodMode:
			fp.Chains, fp.Jumps = b.pod()
		case cfg.Mechanism == TPROXY:
			routing := cfg.PolicyRule(f)
			fp.Routing = &routing
			fp.Chains, fp.Jumps = b.tproxy()
		default:
			fp.Chains, fp.Jumps = b.dnat()
		}
		families = append(families, fp)
	}
	return families
}

// frontendSets are the sets of one family, one for each class.
func frontendSets(node *model.Node, f family.Family) []Set {
	byClass := map[model.Class][]netip.AddrPort{}
	for i := range node.Frontends {
		fe := node.Frontends[i]
		if fe.Redirected() && family.Of(fe.Address.Addr()) == f && dialable(fe.Address) {
			byClass[fe.Class] = append(byClass[fe.Class], unmapped(fe.Address))
		}
	}
	var sets []Set
	specs := FrontendSets(f)
	for i, c := range model.Classes() {
		sets = append(sets, Set{SetSpec: specs[i], Members: sorted(byClass[c]), Reason: "frontends of capture class " + c.String()})
	}
	return sets
}

// podSet is the set of source addresses, yet without members.
func podSet(cfg Config, f family.Family, what string) Set {
	return Set{
		SetSpec: netfilter.SetSpec{Name: PodsSet(f), Type: netfilter.HashIP, Family: f, Timeout: cfg.Timeout, MaxElements: MaxMembers},
		Reason:  what + "; members expire unless the agent keeps renewing them, which it does only while Envoy works",
	}
}

// fullSet is the set of addresses at the limit, which the rules fill.
func fullSet(f family.Family) *Set {
	return &Set{
		SetSpec: netfilter.SetSpec{Name: FullSet(f), Type: netfilter.HashIP, Family: f, Timeout: fullTime, MaxElements: MaxMembers},
		Reason:  "addresses that had as many connections redirected as they may when they made another; while they are here, nothing of theirs is counted",
	}
}

// members are those of a pod's addresses that can be in a set of this family.
func members(ips []netip.Addr, f family.Family) []netip.AddrPort {
	var found []netip.AddrPort
	for _, ip := range ips {
		if at := netip.AddrPortFrom(ip, 0); family.Of(ip) == f && dialable(at) {
			found = append(found, unmapped(at))
		}
	}
	return found
}

// dialable keeps addresses that belong to a single host out of the kernel's
// sets, whatever an object says: link-local ones carry cloud metadata and our
// own listeners.
func dialable(at netip.AddrPort) bool {
	a := at.Addr()
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast()
}

func unmapped(at netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// sorted sorts in place and drops repetitions.
func sorted(members []netip.AddrPort) []netip.AddrPort {
	slices.SortFunc(members, netip.AddrPort.Compare)
	return slices.Compact(members)
}

// compilePods is Compile for PodMode. What is the same in all pods is made
// once, and shared: a hundred pods are no more work than one.
func compilePods(node *model.Node, cfg Config) *Plan {
	p := &Plan{Mode: PodMode}
	shared := compileFamilies(node, cfg)
	for i := range node.Pods {
		pod := &node.Pods[i]
		live, pp := LivePod{Name: pod.Namespace + "/" + pod.Name, UID: uid(pod), IPs: pod.IPs}, compilePod(pod, shared)
		switch {
		case !pod.Enrolled:
			live.Former = pp
		case len(pp.Families) > 0:
			p.Pods = append(p.Pods, pp)
		}
		p.LivePods = append(p.LivePods, live)
	}
	slices.SortFunc(p.LivePods, func(x, y LivePod) int { return cmp.Compare(x.UID, y.UID) })
	slices.SortFunc(p.Pods, func(x, y PodPlan) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Pod, y.Pod), cmp.Compare(x.UID, y.UID))
	})
	return p
}

// compilePod is what one pod's namespace must hold, for the families of which
// the pod has an address.
func compilePod(pod *model.Pod, shared []FamilyPlan) PodPlan {
	pp := PodPlan{Namespace: pod.Namespace, Pod: pod.Name, UID: uid(pod), Workload: pod.Workload, Terminating: pod.Terminating}
	for _, fp := range shared {
		pp.add(fp, sorted(members(pod.IPs, fp.Family)))
	}
	return pp
}

// add adds a family with these addresses of the pod, if there are any.
func (p *PodPlan) add(fp FamilyPlan, members []netip.AddrPort) {
	if len(members) == 0 {
		return
	}
	fp.Pods.Members = members
	for _, m := range members {
		p.IPs = append(p.IPs, m.Addr())
	}
	p.Families = append(p.Families, fp)
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

// FamilyOf is what the network namespace that redirects a pod must hold for one family:
// in PodMode the pod's own; false when there is nothing.
func (p *Plan) FamilyOf(uid string, f family.Family) (FamilyPlan, bool) {
	families := p.Families
	if p.Mode == PodMode {
		i := slices.IndexFunc(p.Pods, func(pp PodPlan) bool { return pp.UID == uid })
		if i < 0 {
			return FamilyPlan{}, false
		}
		families = p.Pods[i].Families
	}
	i := slices.IndexFunc(families, func(fp FamilyPlan) bool { return fp.Family == f })
	if i < 0 {
		return FamilyPlan{}, false
	}
	return families[i], true
}

// ForAddresses is the pod's plan reduced to these of its addresses, and to the
// families of which one is left.
func (p *PodPlan) ForAddresses(held []netip.Addr) PodPlan {
	q := *p
	q.IPs, q.Families = nil, nil
	absent := func(m netip.AddrPort) bool { return !slices.Contains(held, m.Addr()) }
	for _, fp := range p.Families {
		q.add(fp, slices.DeleteFunc(slices.Clone(fp.Pods.Members), absent))
	}
	return q
}
