// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

func TestProbe(t *testing.T) {
	for _, tc := range []struct {
		name      string
		node      func(b *redirecttest.Fixture, f *fakeInfo)
		mechanism plan.Mechanism
		backend   netfilter.Backend
		proxy     string
		families  []family.Family
		reason    string
	}{
		{
			"bare node", func(*redirecttest.Fixture, *fakeInfo) {},
			plan.DNAT, netfilter.NFT, "", family.All(), "no sign of a kube-proxy",
		},
		{
			"kube-proxy by iptables-nft", func(b *redirecttest.Fixture, _ *fakeInfo) {
				b.Chain(netfilter.NFT, "mangle", "KUBE-IPTABLES-HINT")
				b.Chain(netfilter.NFT, "nat", "KUBE-SERVICES")
			},
			plan.DNAT, netfilter.NFT, "iptables", family.All(), "chain KUBE-IPTABLES-HINT is there",
		},
		{
			"kube-proxy by iptables-legacy", func(b *redirecttest.Fixture, _ *fakeInfo) {
				b.Chain(netfilter.Legacy, "mangle", "KUBE-PROXY-CANARY")
				b.Chain(netfilter.Legacy, "nat", "KUBE-SERVICES")
				b.Chain(netfilter.NFT, "nat", "DOCKER", "-A PREROUTING -j DOCKER")
			},
			plan.DNAT, netfilter.Legacy, "iptables", family.All(), "legacy: chain KUBE-PROXY-CANARY is there",
		},
		{
			"only legacy has rules", func(b *redirecttest.Fixture, _ *fakeInfo) {
				b.Chain(netfilter.Legacy, "nat", "CNI", "-A POSTROUTING -j CNI")
			},
			plan.DNAT, netfilter.Legacy, "", family.All(), "only it has rules",
		},
		{
			"ipvs", func(b *redirecttest.Fixture, _ *fakeInfo) {
				b.Must(b.Sets.Create(netfilter.SetSpec{Name: "KUBE-CLUSTER-IP", Type: netfilter.HashIPPort, Family: family.V4, MaxElements: 9}))
				b.Chain(netfilter.NFT, "nat", "KUBE-SERVICES")
			},
			plan.DNAT, netfilter.NFT, "ipvs", family.All(), "ipvs mode",
		},
		{
			"nftables", func(_ *redirecttest.Fixture, f *fakeInfo) {
				f.nft = map[family.Family][]string{family.V4: {"filter", "kube-proxy"}}
			},
			plan.TPROXY, netfilter.NFT, "nftables", family.All(), "undefined",
		},
		{
			"kube-proxy says so", func(_ *redirecttest.Fixture, f *fakeInfo) { f.mode = "nftables" },
			plan.TPROXY, netfilter.NFT, "nftables", family.All(), "kube-proxy says",
		},
		{
			"asked for dnat", func(b *redirecttest.Fixture, f *fakeInfo) { b.Cfg.Mechanism, f.mode = plan.DNAT, "nftables" },
			plan.DNAT, netfilter.NFT, "nftables", family.All(), "warning: kube-proxy's nftables",
		},
		{
			"mark in use", func(b *redirecttest.Fixture, f *fakeInfo) {
				f.mode = "nftables"
				b.Must(b.Network.AddRule(netfilter.PolicyRule{Family: family.V4, Mark: 0x30, Table: 7, Priority: 7}))
			},
			plan.TPROXY, netfilter.NFT, "nftables", family.All(), "policy rule 7 looks at mark bits 0x10",
		},
		{
			"src_valid_mark", func(_ *redirecttest.Fixture, f *fakeInfo) {
				f.mode, f.sysctl = "nftables", map[string]string{"net/ipv4/conf/all/src_valid_mark": "1"}
			},
			plan.TPROXY, netfilter.NFT, "nftables", family.All(), "src_valid_mark is 1",
		},
		{
			"no IPv6", func(_ *redirecttest.Fixture, f *fakeInfo) {
				f.sysctl = map[string]string{"net/ipv6/conf/lo/disable_ipv6": ""}
			},
			plan.DNAT, netfilter.NFT, "",
			[]family.Family{family.V4},
			"IPv6 is left alone: the kernel was started without it",
		},
		{
			"IPv6 disabled", func(_ *redirecttest.Fixture, f *fakeInfo) {
				f.sysctl = map[string]string{"net/ipv6/conf/lo/disable_ipv6": "1"}
			},
			plan.DNAT, netfilter.NFT, "",
			[]family.Family{family.V4},
			"IPv6 is left alone: it is disabled on lo",
		},
		{
			"no ip6tables", func(b *redirecttest.Fixture, _ *fakeInfo) {
				b.Tables = slices.DeleteFunc(b.Tables, func(f *iptables.Fake) bool { return f.Family() == family.V6 })
			},
			plan.DNAT, netfilter.NFT, "",
			[]family.Family{family.V4},
			"IPv6 is left alone: ipv6 nft tables: command not found",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, f := redirecttest.New(t), newFakeInfo(t)
			b.Cfg = plan.DefaultConfig()
			b.Cfg.Mode = plan.HostMode
			tc.node(b, f)
			before := b.Dump()
			got, err := RunWith(t.Context(), b.Cfg, b.Kernel(), f)
			b.Must(err)
			if got.Mechanism != tc.mechanism || got.Backend != tc.backend || got.ProxyMode != tc.proxy || !slices.Equal(got.Families, tc.families) {
				t.Errorf("found %+v", got)
			}
			if !strings.Contains(strings.Join(got.Reasons, "\n"), tc.reason) {
				t.Errorf("no reason %q in %q", tc.reason, got.Reasons)
			}
			if after := b.Dump(); after != before {
				t.Errorf("the probe has left something:\n%s\nbefore:\n%s", after, before)
			}
			// What it decided can be applied.
			b.Cfg = got.Resolve(b.Cfg)
			b.Must(b.Cfg.Validate())
			b.Applied(redirecttest.Node(t, nil, "10.1.0.2"))
		})
	}
}

// brokenSets fail at some questions.
type brokenSets struct {
	*ipset.Fake
	err, names, create error
}

func (s brokenSets) Protocol() (int, error) { return 0, s.err }

func (s brokenSets) Names() ([]string, error) { return nil, s.names }

func (s brokenSets) Create(netfilter.SetSpec) error { return s.create }

func TestProbeRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		node func(b *redirecttest.Fixture, k *apply.Kernel, f *fakeInfo)
		want []string
	}{
		{"no permission", func(b *redirecttest.Fixture, k *apply.Kernel, _ *fakeInfo) {
			k.Sets = brokenSets{Fake: b.Sets, err: syscall.EPERM}
		}, []string{"no permission", "NET_ADMIN", "NET_RAW"}},
		{"no ipset", func(b *redirecttest.Fixture, k *apply.Kernel, _ *fakeInfo) {
			k.Sets = brokenSets{Fake: b.Sets, err: syscall.EINVAL}
		}, []string{"no ipset", "modprobe ip_set"}},
		{"no iptables", func(_ *redirecttest.Fixture, k *apply.Kernel, _ *fakeInfo) { k.Tables = nil }, []string{"no iptables-legacy", "install"}},
		{"tproxy behind a bridge", func(b *redirecttest.Fixture, _ *apply.Kernel, f *fakeInfo) {
			f.mode, b.Network.BridgePort = "nftables", "veth7"
		}, []string{"veth7", "bridge-nf-call-iptables"}},
		{"no xt_set", func(b *redirecttest.Fixture, _ *apply.Kernel, _ *fakeInfo) {
			for _, fake := range b.Tables {
				fake.SetExists = func(string) bool { return false }
			}
		}, []string{"modprobe xt_set", "NET_RAW"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, f := redirecttest.New(t), newFakeInfo(t)
			k := b.Kernel()
			tc.node(b, &k, f)
			cfg := plan.DefaultConfig()
			cfg.Mode = plan.HostMode
			_, err := RunWith(t.Context(), cfg, k, f)
			var lack *MissingRequirement
			if !errors.As(err, &lack) {
				t.Fatalf("error %v, want a MissingRequirement", err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in: %v", w, err)
				}
			}
		})
	}
}
