// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Plan is all that the kernel must hold for redirection, as data. It is
// immutable, and the same for both iptables backends.
type Plan struct {
	Mode Mode
	// Mechanism is HostMode's; empty in PodMode.
	Mechanism Mechanism
	// Families are what the host's network namespace must hold; none in PodMode.
	Families []FamilyPlan
	// Pods are the enrolled pods, sorted by namespace and name, and what the
	// network namespace of each must hold; none in HostMode.
	Pods []PodPlan
	// LivePods are all pods on the node, enrolled or not, sorted by UID; none in
	// HostMode. A pod that is no longer enrolled but runs keeps the connections it
	// has, and no pod is given another's network namespace.
	LivePods []LivePod
}

// LivePod is a pod on the node.
type LivePod struct {
	// Name is namespace/name, UID as in PodPlan.
	Name, UID string
	// IPs are all of the pod's own addresses, whether they may be redirected or not.
	IPs []netip.Addr
	// Former is what a pod that is not enrolled would have to hold if it were, as it
	// may have been: an earlier agent's listeners and rules are like this.
	Former PodPlan
}

// PodPlan is the part of a Plan that concerns one pod's network namespace.
type PodPlan struct {
	Namespace, Pod string
	// UID tells the pod from others that had its name; it is the namespace and
	// name for a pod that was given none.
	UID string
	// Workload is what runs it, as model.Pod has it: for logs.
	Workload string
	// Terminating is set for a pod that is being deleted.
	Terminating bool
	// Blocked is why the pod must not be engaged now; empty when it may be.
	Blocked string
	// IPs are the pod's addresses that may be redirected.
	IPs []netip.Addr
	// Families are those of IPs. Pods share all of them but the set of pods.
	Families []FamilyPlan
}

// Name is the pod's namespace/name.
func (p *PodPlan) Name() string { return p.Namespace + "/" + p.Pod }

// FamilyPlan is the part of a Plan that concerns one IP family.
type FamilyPlan struct {
	Family family.Family
	// Address is where Envoy listens, on the loopback interface: an address of
	// ours, or, in a pod, the one that every loopback interface has.
	Address netip.Addr
	// Frontends has one set for each capture class; Pods is the set of source
	// addresses, whose members expire.
	Frontends []Set
	Pods      Set
	// Full is the set of source addresses that have as many connections as may be
	// redirected, which the rules themselves fill; nil without a limit.
	Full *Set
	// Routing leads marked packets to this host; nil for dnat.
	Routing *netfilter.PolicyRule
	// Chains are ours; Jumps lead to them from the kernel's.
	Chains []Chain
	Jumps  []Jump
}

// Set is an ipset and what is to be in it, sorted.
type Set struct {
	netfilter.SetSpec
	Members []netip.AddrPort
	Reason  string
}

// Chain is a chain of ours and its rules, in order.
type Chain struct {
	Table, Name string
	Rules       []Rule
}

// Rule is one iptables rule as iptables-save writes it, without "-A CHAIN",
// and why it is there.
type Rule struct {
	Spec, Reason string
}

// Jump is the rule in a chain of the kernel's that leads to one of ours. It
// must be that chain's first.
type Jump struct {
	Table, Parent, Chain string
	Rule
}

// Blocking returns a copy of the plan in which the pods with these UIDs must not be
// engaged, for the reasons given.
func (p *Plan) Blocking(reasons map[string]string) *Plan {
	if len(reasons) == 0 {
		return p
	}
	blocked := *p
	blocked.Pods = slices.Clone(p.Pods)
	for i := range blocked.Pods {
		blocked.Pods[i].Blocked = reasons[blocked.Pods[i].UID]
	}
	return &blocked
}

// RuleCount is the number of iptables rules, jumps included, of both families
// and of all pods.
func (p *Plan) RuleCount() int {
	n := 0
	for _, f := range p.families() {
		n += len(f.Jumps)
		for _, c := range f.Chains {
			n += len(c.Rules)
		}
	}
	return n
}

// EnrolledIPs is the number of pod addresses to redirect.
func (p *Plan) EnrolledIPs() int {
	n := 0
	for _, f := range p.families() {
		n += len(f.Pods.Members)
	}
	return n
}

// families are those of the host, or of all pods.
func (p *Plan) families() []FamilyPlan {
	all := p.Families
	for i := range p.Pods {
		all = append(all[:len(all):len(all)], p.Pods[i].Families...)
	}
	return all
}

// Sets are all sets of the family, the pods' last.
func (f *FamilyPlan) Sets() []Set {
	sets := f.Frontends[:len(f.Frontends):len(f.Frontends)]
	if f.Full != nil {
		sets = append(sets, *f.Full)
	}
	return append(sets, f.Pods)
}

// HasChain says whether the plan has the chain.
func (p *Plan) HasChain(f family.Family, h Hook) bool {
	return slices.ContainsFunc(p.Families, func(fp FamilyPlan) bool {
		isThat := func(c Chain) bool { return c.Table == h.Table && c.Name == h.Chain }
		return fp.Family == f && slices.ContainsFunc(fp.Chains, isThat)
	})
}

// Lines are the chain's rules as they are read back.
func (c Chain) Lines() []string {
	lines := make([]string, 0, len(c.Rules))
	for _, r := range c.Rules {
		lines = append(lines, "-A "+c.Name+" "+r.Spec)
	}
	return lines
}

// InPlace says whether the jump is the first of its parent's rules, and no
// other of them leads to a chain of ours.
func (j Jump) InPlace(rules []string) bool {
	return len(rules) > 0 && rules[0] == "-A "+j.Parent+" "+j.Spec && !slices.ContainsFunc(rules[1:], IsOurJump)
}

// Deletions are the commands that remove every jump to our chains.
func Deletions(rules []string) []string {
	var lines []string
	for _, r := range rules {
		if IsOurJump(r) {
			lines = append(lines, "-D"+strings.TrimPrefix(r, "-A"))
		}
	}
	return lines
}

// IsOurJump says whether a rule leads to a chain of ours.
func IsOurJump(rule string) bool {
	words := strings.Fields(rule)
	for i, w := range words[:max(0, len(words)-1)] {
		if (w == "-j" || w == "-g") && strings.HasPrefix(words[i+1], ChainPrefix) {
			return true
		}
	}
	return false
}
