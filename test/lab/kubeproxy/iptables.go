// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// iptables is kube-proxy in iptables mode.
type iptables struct {
	run     Run
	backend string
	// ranges are the pods' addresses, v4 and v6: what comes from elsewhere is
	// masqueraded.
	ranges [2]string
	// written are the chains of the last sync, by family: those that are no
	// longer wanted are deleted by the next.
	written [2]map[string]bool
}

// NewIPTables makes a stand-in for kube-proxy in iptables mode. The backend is
// nft, legacy, or empty for what the machine's iptables is.
func NewIPTables(run Run, backend, podRange4, podRange6 string) Proxy {
	return &iptables{run: run, backend: backend, ranges: [2]string{podRange4, podRange6}}
}

// command is the name of one of iptables' programs, for a family: "iptables"
// with suffix "-restore" is ip6tables-legacy-restore, for example.
func (p *iptables) command(family int, suffix string) string {
	name := [2]string{"iptables", "ip6tables"}[family]
	if p.backend != "" {
		name += "-" + p.backend
	}
	return name + suffix
}

// Sync writes all chains by one restore for each family, then puts back the
// jumps that are missing, each at the top of its chain.
func (p *iptables) Sync(ctx context.Context, ports []Port) error {
	for family := range 2 {
		text, chains := restoreText(ofFamily(ports, family == 1), p.ranges[family], p.written[family])
		if _, err := p.run(ctx, text, p.command(family, "-restore"), "-w", "5", "--noflush"); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		p.written[family] = chains
		for _, jump := range jumps() {
			rule := append([]string{jump.chain}, strings.Fields(jump.rule)...)
			with := func(flag string) []string {
				return append([]string{p.command(family, ""), "-w", "5", "-t", jump.table, flag}, rule...)
			}
			if _, err := p.run(ctx, "", with("-C")...); err == nil {
				continue
			}
			if _, err := p.run(ctx, "", with("-I")...); err != nil {
				return fmt.Errorf("insert jump: %w", err)
			}
		}
	}
	return nil
}

type jump struct{ table, chain, rule string }

// jumps are the rules in built-in chains.
func jumps() []jump {
	const fresh = "-m conntrack --ctstate NEW "
	return []jump{
		{"filter", "INPUT", fresh + "-j KUBE-EXTERNAL-SERVICES"},
		{"filter", "FORWARD", fresh + "-j KUBE-EXTERNAL-SERVICES"},
		{"filter", "INPUT", "-j KUBE-NODEPORTS"},
		{"filter", "FORWARD", fresh + "-j KUBE-SERVICES"},
		{"filter", "OUTPUT", fresh + "-j KUBE-SERVICES"},
		{"filter", "FORWARD", "-j KUBE-FORWARD"},
		{"filter", "INPUT", "-j KUBE-FIREWALL"},
		{"filter", "OUTPUT", "-j KUBE-FIREWALL"},
		{"nat", "OUTPUT", "-j KUBE-SERVICES"},
		{"nat", "PREROUTING", "-j KUBE-SERVICES"},
		{"nat", "POSTROUTING", "-j KUBE-POSTROUTING"},
	}
}

// table is the text of one table for iptables-restore.
type table struct {
	name          string
	chains, rules []string
}

func (t *table) chain(name string) { t.chains = append(t.chains, name) }

func (t *table) rule(format string, args ...any) {
	t.rules = append(t.rules, "-A "+fmt.Sprintf(format, args...))
}

func (t *table) write(b *strings.Builder) {
	fmt.Fprintf(b, "*%s\n", t.name)
	for _, c := range t.chains {
		fmt.Fprintf(b, ":%s - [0:0]\n", c)
	}
	for _, r := range t.rules {
		fmt.Fprintln(b, r)
	}
	fmt.Fprintln(b, "COMMIT")
}

// restoreText is all of kube-proxy's chains for one family, and the deletion
// of the Services' chains of the last time that are no longer wanted. It
// returns the Services' chains of this time.
func restoreText(ports []Port, podRange string, last map[string]bool) (string, map[string]bool) {
	nat, filter := fixedNAT(), fixedFilter()
	// kubelet's and kube-proxy's marks of their presence: which backend has
	// them tells others which one to use.
	mangle := &table{name: "mangle", chains: []string{"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY", "KUBE-PROXY-CANARY"}}
	chains := map[string]bool{}
	for _, p := range ports {
		servicePort(nat, filter, p, podRange, chains)
	}
	nat.rule("KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")
	var gone []string
	for c := range last {
		if !chains[c] {
			nat.chain(c)
			gone = append(gone, "-X "+c)
		}
	}
	slices.Sort(gone)
	nat.rules = append(nat.rules, gone...)
	var b strings.Builder
	for _, t := range []*table{mangle, filter, nat} {
		t.write(&b)
	}
	return b.String(), chains
}

// fixedNAT is what the nat table has whatever the Services.
func fixedNAT() *table {
	t := &table{name: "nat", chains: []string{
		"KUBE-PROXY-CANARY", "KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ",
	}}
	t.rule("KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN")
	t.rule("KUBE-POSTROUTING -j MARK --xor-mark 0x4000")
	t.rule("KUBE-POSTROUTING -j MASQUERADE --random-fully")
	t.rule("KUBE-MARK-MASQ -j MARK --or-mark 0x4000")
	return t
}

// fixedFilter is what the filter table has whatever the Services.
func fixedFilter() *table {
	t := &table{name: "filter", chains: []string{
		"KUBE-PROXY-CANARY", "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-FORWARD", "KUBE-FIREWALL",
	}}
	t.rule("KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP")
	t.rule("KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT")
	t.rule("KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	return t
}

// servicePort writes one port: a rule to its chain, and there one endpoint at
// random; without endpoints, a rejection.
func servicePort(nat, filter *table, p Port, podRange string, chains map[string]bool) {
	match := fmt.Sprintf("-m %s -p %s -d %s --dport %d", p.Protocol, p.Protocol, single(p.Address.Addr()), p.Address.Port())
	if len(p.Endpoints) == 0 {
		filter.rule("KUBE-SERVICES -m comment --comment %q %s -j REJECT", p.Name+" has no endpoints", match)
		return
	}
	svc := "KUBE-SVC-" + hash(p.Name, p.Protocol)
	nat.rule("KUBE-SERVICES -m comment --comment %q %s -j %s", p.Name+" cluster IP", match, svc)
	if chains[svc] {
		return // another cluster IP of the same family
	}
	chains[svc] = true
	nat.chain(svc)
	nat.rule("%s -m comment --comment %q %s ! -s %s -j KUBE-MARK-MASQ", svc, p.Name+" cluster IP", match, podRange)
	for i, e := range p.Endpoints {
		sep := "KUBE-SEP-" + hash(p.Name, p.Protocol, e.String())
		chains[sep] = true
		nat.chain(sep)
		chance := ""
		if left := len(p.Endpoints) - i; left > 1 {
			chance = fmt.Sprintf(" -m statistic --mode random --probability %.10f", 1/float64(left))
		}
		nat.rule("%s -m comment --comment %q%s -j %s", svc, p.Name+" -> "+e.String(), chance, sep)
		// A pod that reaches itself by the Service must not see its own address
		// as the caller's.
		nat.rule("%s -m comment --comment %q -s %s -j KUBE-MARK-MASQ", sep, p.Name, single(e.Addr()))
		nat.rule("%s -m comment --comment %q -m %s -p %s -j DNAT --to-destination %s", sep, p.Name, p.Protocol, p.Protocol, e)
	}
}

// single is an address as a network of one.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
