// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"context"
	"fmt"
	"strings"
)

// nftables is kube-proxy in nftables mode.
type nftables struct {
	run    Run
	ranges [2]string
}

// NewNFTables makes a stand-in for kube-proxy in nftables mode: a table
// kube-proxy in each family.
func NewNFTables(run Run, podRange4, podRange6 string) Proxy {
	return &nftables{run: run, ranges: [2]string{podRange4, podRange6}}
}

// Sync replaces both tables, each in one transaction.
func (p *nftables) Sync(ctx context.Context, ports []Port) error {
	for family, name := range []string{"ip", "ip6"} {
		text := tableText(name, ofFamily(ports, family == 1), p.ranges[family])
		if _, err := p.run(ctx, text, "nft", "-f", "-"); err != nil {
			return fmt.Errorf("replace table %s kube-proxy: %w", name, err)
		}
	}
	return nil
}

// tableText is a transaction that replaces the table. Family is ip or ip6.
func tableText(family string, ports []Port, podRange string) string {
	var chains, services, rejected, addresses []string
	seen := map[string]bool{}
	for _, p := range ports {
		ip := p.Address.Addr().String()
		if !seen[ip] {
			seen[ip] = true
			addresses = append(addresses, ip)
		}
		key := fmt.Sprintf("%s . %s . %d", ip, p.Protocol, p.Address.Port())
		if len(p.Endpoints) == 0 {
			rejected = append(rejected, key+" : goto reject-chain")
			continue
		}
		name := "service-" + hash(p.Name, p.Protocol, ip)
		services = append(services, key+" : goto "+name)
		chains = append(chains, serviceChains(family, name, p, podRange)...)
	}
	addrType := map[string]string{"ip": "ipv4_addr", "ip6": "ipv6_addr"}[family]
	vmap := func(name string, elements []string) string {
		return fmt.Sprintf("\tmap %s { type %s . inet_proto . inet_service : verdict; %s}\n", name, addrType, elementsText(elements))
	}
	var b strings.Builder
	// Declared first, a table can be deleted whether it was there or not.
	fmt.Fprintf(&b, "table %s kube-proxy {}\ndelete table %s kube-proxy\ntable %s kube-proxy {\n", family, family, family)
	fmt.Fprintf(&b, "\tset cluster-ips { type %s; %s}\n", addrType, elementsText(addresses))
	b.WriteString(strings.Join(chains, ""))
	b.WriteString("\tchain reject-chain {\n\t\treject\n\t}\n")
	b.WriteString(vmap("service-ips", services))
	b.WriteString(vmap("no-endpoint-services", rejected))
	b.WriteString(strings.ReplaceAll(baseChains, "FAMILY", family))
	b.WriteString("}\n")
	return b.String()
}

func elementsText(elements []string) string {
	if len(elements) == 0 {
		return ""
	}
	return "elements = { " + strings.Join(elements, ", ") + " } "
}

// serviceChains are the chain of one port and those of its endpoints.
func serviceChains(family, name string, p Port, podRange string) []string {
	var out, choice []string
	for i, e := range p.Endpoints {
		chain := "endpoint-" + hash(p.Name, p.Protocol, e.String())
		choice = append(choice, fmt.Sprintf("%d : goto %s", i, chain))
		out = append(out, fmt.Sprintf(
			"\tchain %s {\n\t\t%s saddr %s jump mark-for-masquerade\n\t\tmeta l4proto %s dnat to %s\n\t}\n",
			chain, family, e.Addr(), p.Protocol, e))
	}
	return append(out, fmt.Sprintf(
		"\tchain %s {\n\t\t%s daddr %s %s dport %d %s saddr != %s jump mark-for-masquerade\n\t\t%s\n\t}\n",
		name, family, p.Address.Addr(), p.Protocol, p.Address.Port(), family, podRange, chosen(choice)))
}

// chosen is the rule that chooses an endpoint at random. Of one there is no choice:
// kube-proxy writes a map for it too, but to name each new map the kernel looks at all
// others, which takes 10 s with the maps of 7,000 ports.
func chosen(choice []string) string {
	if len(choice) == 1 {
		_, verdict, _ := strings.Cut(choice[0], " : ")
		return verdict
	}
	return fmt.Sprintf("numgen random mod %d vmap { %s }", len(choice), strings.Join(choice, ", "))
}

// baseChains are the hooks: what is for a Service is sent on before routing,
// or rejected, and what is for another port of a cluster IP is rejected too.
// They stand after the maps that they use.
const baseChains = `	chain mark-for-masquerade {
		mark set mark or 0x4000
	}
	chain services {
		FAMILY daddr . meta l4proto . th dport vmap @service-ips
	}
	chain service-endpoints-check {
		FAMILY daddr . meta l4proto . th dport vmap @no-endpoint-services
	}
	chain cluster-ips-check {
		FAMILY daddr @cluster-ips reject comment "no such port of a Service"
	}
	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}
	chain nat-output {
		type nat hook output priority -100; policy accept;
		jump services
	}
	chain nat-postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		mark & 0x4000 == 0 return
		mark set mark xor 0x4000
		masquerade fully-random
	}
	chain filter-prerouting-pre-dnat {
		type filter hook prerouting priority dstnat - 10; policy accept;
		ct state new jump service-endpoints-check
	}
	chain filter-output-pre-dnat {
		type filter hook output priority -110; policy accept;
		ct state new jump service-endpoints-check
	}
	chain filter-forward {
		type filter hook forward priority 0; policy accept;
		ct state new jump cluster-ips-check
	}
	chain filter-output {
		type filter hook output priority 0; policy accept;
		ct state new jump cluster-ips-check
	}
`
