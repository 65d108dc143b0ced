// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Render is the whole plan as text: for each family what iptables-save, ipset
// save and ip would print of it, with the reason above each line. The same plan
// gives the same bytes.
func (p *Plan) Render() string {
	var b strings.Builder
	if p.Mode == PodMode {
		p.renderPods(&b)
		return b.String()
	}
	fmt.Fprintf(&b, "# mechanism %s\n", p.Mechanism)
	for i := range p.Families {
		f := &p.Families[i]
		fmt.Fprintf(&b, "\n# %s: addresses and routes\n%s", f.Family, f.RenderNetwork())
		fmt.Fprintf(&b, "\n# %s: sets\n%s", f.Family, f.RenderSets())
		fmt.Fprintf(&b, "\n# %s: rules\n%s", f.Family, f.RenderRules())
	}
	return b.String()
}

// renderPods writes once what all pods share, and then what is each pod's own.
func (p *Plan) renderPods(b *strings.Builder) {
	fmt.Fprintf(b, "# mode %s: all of this in the network namespace of each pod listed last\n", p.Mode)
	for _, f := range family.All() {
		for i := range p.Pods {
			common, ok := p.Pods[i].Family(f)
			if !ok {
				continue
			}
			common.Pods.Members = nil
			fmt.Fprintf(b, "\n# %s: sets\n%s", f, common.RenderSets())
			fmt.Fprintf(b, "\n# %s: rules\n%s", f, common.RenderRules())
			break
		}
	}
	for i := range p.Pods {
		fmt.Fprintf(b, "\n# pod %s\n", p.Pods[i].Name())
		for _, f := range p.Pods[i].Families {
			b.WriteString(f.Pods.addLines())
		}
	}
}

// RenderRules is the family's rules in the form of iptables-save: what
// iptables-restore --noflush takes, but that jumps are inserted, not appended.
func (f *FamilyPlan) RenderRules() string {
	var b strings.Builder
	for _, table := range Tables() {
		chains, jumps := f.ChainsOf(table), f.JumpsOf(table)
		if len(chains) == 0 {
			continue
		}
		fmt.Fprintf(&b, "*%s\n", table)
		for _, c := range chains {
			fmt.Fprintf(&b, ":%s - [0:0]\n", c.Name)
		}
		for _, j := range jumps {
			fmt.Fprintf(&b, "# %s\n-A %s %s\n", j.Reason, j.Parent, j.Spec)
		}
		for _, c := range chains {
			for _, r := range c.Rules {
				fmt.Fprintf(&b, "# %s\n-A %s %s\n", r.Reason, c.Name, r.Spec)
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// RenderSets is the family's sets in the form of ipset save.
func (f *FamilyPlan) RenderSets() string {
	var b strings.Builder
	for _, s := range f.Sets() {
		fmt.Fprintf(&b, "# %s\n%s\n", s.Reason, CreateLine(s.SetSpec))
		b.WriteString(s.addLines())
	}
	return b.String()
}

// addLines are the commands that add the set's members.
func (s *Set) addLines() string {
	var b strings.Builder
	for _, m := range s.Members {
		fmt.Fprintf(&b, "add %s %s\n", s.Name, MemberText(s.Type, m))
	}
	return b.String()
}

// RenderNetwork is the family's address and policy routing as ip commands.
func (f *FamilyPlan) RenderNetwork() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Envoy listens here, and the node's neighbours see none of it\n")
	fmt.Fprintf(&b, "ip address add %s/%d dev lo%s\n", f.Address, f.Address.BitLen(), family.Pick(f.Family, " scope host", " nodad preferred_lft 0"))
	if r := f.Routing; r != nil {
		dash := family.Pick(f.Family, "-4", "-6")
		fmt.Fprintf(&b, "# marked packets belong to this host, whatever their destination\n")
		fmt.Fprintf(&b, "ip %s rule add priority %d fwmark 0x%x/0x%x lookup %d\n", dash, r.Priority, r.Mark, r.Mark, r.Table)
		fmt.Fprintf(&b, "ip %s route add local default dev lo table %d\n", dash, r.Table)
	}
	return b.String()
}

// CreateLine is the command that makes a set, without the options the kernel
// chooses by itself.
func CreateLine(s netfilter.SetSpec) string {
	line := fmt.Sprintf("create %s %s family %s maxelem %d", s.Name, s.Type, s.Family.INET(), s.MaxElements)
	if s.Timeout > 0 {
		line += fmt.Sprintf(" timeout %d", int(s.Timeout.Seconds()))
	}
	return line
}

// MemberText is a member as ipset writes it.
func MemberText(t netfilter.SetType, m netip.AddrPort) string {
	if t == netfilter.HashIP {
		return m.Addr().String()
	}
	return fmt.Sprintf("%s,tcp:%d", m.Addr(), m.Port())
}

// ChainsOf are the family's chains in a table.
func (f *FamilyPlan) ChainsOf(table string) []Chain {
	return slices.DeleteFunc(slices.Clone(f.Chains), func(c Chain) bool { return c.Table != table })
}

// JumpsOf are the family's jumps in a table.
func (f *FamilyPlan) JumpsOf(table string) []Jump {
	return slices.DeleteFunc(slices.Clone(f.Jumps), func(j Jump) bool { return j.Table != table })
}
