// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/route"
)

// chain makes a chain of somebody else's.
func (b *bench) chain(backend iptables.Backend, table, name string, rules ...string) {
	b.t.Helper()
	text := "*" + table + "\n:" + name + " - [0:0]\n" + strings.Join(append(rules, ""), "\n") + "COMMIT\n"
	for _, fake := range b.tables {
		if fake.Backend() == backend && fake.Family() == family.V4 {
			b.must(fake.Restore(b.t.Context(), text))
		}
	}
}

func TestProbe(t *testing.T) {
	for _, tc := range []struct {
		name      string
		node      func(b *bench, f *facts)
		mechanism Mechanism
		backend   iptables.Backend
		proxy     string
		families  []family.Family
		reason    string
	}{
		{
			"bare node", func(*bench, *facts) {},
			DNAT, iptables.NFT, "", family.All(), "no sign of a kube-proxy",
		},
		{
			"kube-proxy by iptables-nft", func(b *bench, _ *facts) {
				b.chain(iptables.NFT, "mangle", "KUBE-IPTABLES-HINT")
				b.chain(iptables.NFT, "nat", "KUBE-SERVICES")
			},
			DNAT, iptables.NFT, "iptables", family.All(), "chain KUBE-IPTABLES-HINT is there",
		},
		{
			"kube-proxy by iptables-legacy", func(b *bench, _ *facts) {
				b.chain(iptables.Legacy, "mangle", "KUBE-PROXY-CANARY")
				b.chain(iptables.Legacy, "nat", "KUBE-SERVICES")
				b.chain(iptables.NFT, "nat", "DOCKER", "-A PREROUTING -j DOCKER")
			},
			DNAT, iptables.Legacy, "iptables", family.All(), "legacy: chain KUBE-PROXY-CANARY is there",
		},
		{
			"only legacy has rules", func(b *bench, _ *facts) { b.chain(iptables.Legacy, "nat", "CNI", "-A POSTROUTING -j CNI") },
			DNAT, iptables.Legacy, "", family.All(), "only it has rules",
		},
		{
			"ipvs", func(b *bench, _ *facts) {
				b.must(b.sets.Create(ipset.Spec{Name: "KUBE-CLUSTER-IP", Type: ipset.HashIPPort, Family: family.V4, MaxElements: 9}))
				b.chain(iptables.NFT, "nat", "KUBE-SERVICES")
			},
			DNAT, iptables.NFT, "ipvs", family.All(), "ipvs mode",
		},
		{
			"nftables", func(_ *bench, f *facts) { f.nft = map[family.Family][]string{family.V4: {"filter", "kube-proxy"}} },
			TPROXY, iptables.NFT, "nftables", family.All(), "undefined",
		},
		{
			"kube-proxy says so", func(_ *bench, f *facts) { f.mode = "nftables" },
			TPROXY, iptables.NFT, "nftables", family.All(), "kube-proxy says",
		},
		{
			"asked for dnat", func(b *bench, f *facts) { b.cfg.Mechanism, f.mode = DNAT, "nftables" },
			DNAT, iptables.NFT, "nftables", family.All(), "warning: kube-proxy's nftables",
		},
		{
			"mark in use", func(b *bench, f *facts) {
				f.mode = "nftables"
				b.must(b.network.AddRule(route.Rule{Family: family.V4, Mark: 0x30, Table: 7, Priority: 7}))
			},
			TPROXY, iptables.NFT, "nftables", family.All(), "policy rule 7 looks at mark bits 0x10",
		},
		{
			"src_valid_mark", func(_ *bench, f *facts) {
				f.mode, f.sysctl = "nftables", map[string]string{"net/ipv4/conf/all/src_valid_mark": "1"}
			},
			TPROXY, iptables.NFT, "nftables", family.All(), "src_valid_mark is 1",
		},
		{
			"no IPv6", func(_ *bench, f *facts) { f.sysctl = map[string]string{"net/ipv6/conf/lo/disable_ipv6": ""} },
			DNAT, iptables.NFT, "",
			[]family.Family{family.V4},
			"IPv6 is left alone: the kernel was started without it",
		},
		{
			"IPv6 disabled", func(_ *bench, f *facts) { f.sysctl = map[string]string{"net/ipv6/conf/lo/disable_ipv6": "1"} },
			DNAT, iptables.NFT, "",
			[]family.Family{family.V4},
			"IPv6 is left alone: it is disabled on lo",
		},
		{
			"no ip6tables", func(b *bench, _ *facts) {
				b.tables = slices.DeleteFunc(b.tables, func(f *iptables.Fake) bool { return f.Family() == family.V6 })
			},
			DNAT, iptables.NFT, "",
			[]family.Family{family.V4},
			"IPv6 is left alone: ipv6 nft tables: command not found",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, f := newBench(t), newFacts(t)
			b.cfg = Default()
			b.cfg.Mode = HostMode
			tc.node(b, f)
			before := b.dump()
			got, err := ProbeFor(t.Context(), b.cfg, b.kernel(), f)
			b.must(err)
			if got.Mechanism != tc.mechanism || got.Backend != tc.backend || got.ProxyMode != tc.proxy || !slices.Equal(got.Families, tc.families) {
				t.Errorf("found %+v", got)
			}
			if !strings.Contains(strings.Join(got.Reasons, "\n"), tc.reason) {
				t.Errorf("no reason %q in %q", tc.reason, got.Reasons)
			}
			if after := b.dump(); after != before {
				t.Errorf("the probe has left something:\n%s\nbefore:\n%s", after, before)
			}
			// What it decided can be applied.
			b.cfg = got.Resolve(b.cfg)
			b.must(b.cfg.Validate())
			b.applied(node(t, nil, "10.1.0.2"))
		})
	}
}

// brokenSets fail at the first question.
type brokenSets struct {
	*ipset.Fake
	err error
}

func (s brokenSets) Protocol() (int, error) { return 0, s.err }

func TestProbeRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		node func(b *bench, k *Kernel, f *facts)
		want []string
	}{
		{"no permission", func(b *bench, k *Kernel, _ *facts) { k.Sets = brokenSets{b.sets, syscall.EPERM} }, []string{"no permission", "NET_ADMIN", "NET_RAW"}},
		{"no ipset", func(b *bench, k *Kernel, _ *facts) { k.Sets = brokenSets{b.sets, syscall.EINVAL} }, []string{"no ipset", "modprobe ip_set"}},
		{"no iptables", func(_ *bench, k *Kernel, _ *facts) { k.Tables = nil }, []string{"no iptables-legacy", "install"}},
		{"tproxy behind a bridge", func(b *bench, _ *Kernel, f *facts) { f.mode, b.network.BridgePort = "nftables", "veth7" }, []string{"veth7", "bridge-nf-call-iptables"}},
		{"no xt_set", func(b *bench, _ *Kernel, _ *facts) {
			for _, fake := range b.tables {
				fake.SetExists = func(string) bool { return false }
			}
		}, []string{"modprobe xt_set", "NET_RAW"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, f := newBench(t), newFacts(t)
			k := b.kernel()
			tc.node(b, &k, f)
			cfg := Default()
			cfg.Mode = HostMode
			_, err := ProbeFor(t.Context(), cfg, k, f)
			var lack *Lack
			if !errors.As(err, &lack) {
				t.Fatalf("error %v, want a Lack", err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in: %v", w, err)
				}
			}
		})
	}
}
