// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/ebpf"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// errNotAllowed is what a process without SYS_ADMIN meets.
var errNotAllowed = fmt.Errorf("make a network namespace: %w: operation not permitted", netns.ErrNotPermitted)

// onVeths is what an eBPF CNI attaches to pods' interfaces.
func onVeths(n int) []ebpf.Program {
	var all []ebpf.Program
	for i := range n {
		all = append(all, ebpf.Program{Link: fmt.Sprintf("lxc%d", i), Hook: "tcx ingress", Name: "cil_from_container"})
	}
	return all
}

// refuse lets the scratch network namespace refuse what an iptables would take.
func (f *fakeInfo) refuse(backend netfilter.Backend, of ...family.Family) {
	before := f.refuses
	f.refuses = func(t *iptables.Fake, text string) error {
		if t.Backend() == backend && slices.Contains(of, t.Family()) {
			return fmt.Errorf("%s of %s: no REDIRECT: %w", t.Backend(), t.Family(), iptables.ErrUnsupported)
		}
		if before != nil {
			return before(t, text)
		}
		return nil
	}
}

func TestProbeModes(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  func(c *plan.Config)
		node func(b *redirecttest.Fixture, f *fakeInfo)
		// want is mode, mechanism, backend and families.
		want    string
		reasons []string
	}{
		{
			name: "auto", want: "pod  nft [ipv4 ipv6]",
			reasons: []string{
				"network namespaces can be found in /run/netns, 3 now", "may enter network namespaces (capability SYS_ADMIN)",
				"by iptables-nft", "mode pod: the node has what it needs", "no eBPF programs on pods' interfaces", "no load balancing at the socket",
			},
		},
		{
			name: "auto without SYS_ADMIN", node: func(_ *redirecttest.Fixture, f *fakeInfo) { f.refusal = errNotAllowed },
			want: "host dnat nft [ipv4 ipv6]", reasons: []string{"mode pod can't be used: no permission to enter network namespaces", "SYS_ADMIN", "mode host: the node has what it needs"},
		},
		{
			name: "auto without netns directories", node: func(_ *redirecttest.Fixture, f *fakeInfo) {
				f.preflight, f.preflightErr = netns.Preflight{}, fmt.Errorf("/run/netns: %w", os.ErrNotExist)
			},
			want: "host dnat nft [ipv4 ipv6]", reasons: []string{"mode pod can't be used: pods' network namespaces are not to be seen (/run/netns: file does not exist)", "HostToContainer"},
		},
		{
			name: "auto where kube-proxy and bridge rule out host mode", node: func(b *redirecttest.Fixture, f *fakeInfo) { f.mode, b.Network.BridgePort = "nftables", "veth7" },
			want: "pod  nft [ipv4 ipv6]", reasons: []string{"kube-proxy says it is in nftables mode", "br_netfilter, interface veth7"},
		},
		{
			name: "auto on an eBPF CNI", node: func(_ *redirecttest.Fixture, f *fakeInfo) { f.onPods = onVeths(5) },
			want: "pod  nft [ipv4 ipv6]", reasons: []string{"lxc0 tcx ingress cil_from_container, lxc1", "and 2 more"},
		},
		{
			name: "auto on an eBPF CNI without SYS_ADMIN", node: func(_ *redirecttest.Fixture, f *fakeInfo) { f.onPods, f.refusal = onVeths(1), errNotAllowed },
			want: "host dnat nft [ipv4 ipv6]", reasons: []string{"warning: host mode redirects nothing that the eBPF programs on pods' interfaces (lxc0 tcx ingress cil_from_container)"},
		},
		{
			name: "auto with a mechanism", cfg: func(c *plan.Config) { c.Mechanism = plan.TPROXY },
			want: "pod  nft [ipv4 ipv6]", reasons: []string{"mechanism tproxy is host mode's"},
		},
		{
			name: "host on an eBPF CNI", cfg: func(c *plan.Config) { c.Mode = plan.HostMode }, node: func(_ *redirecttest.Fixture, f *fakeInfo) { f.onPods = onVeths(1) },
			want: "host dnat nft [ipv4 ipv6]", reasons: []string{"mode host was asked for", "warning: host mode redirects nothing"},
		},
		{
			name: "host needs nothing of pods", cfg: func(c *plan.Config) { c.Mode = plan.HostMode },
			node: func(_ *redirecttest.Fixture, f *fakeInfo) {
				f.refusal, f.preflight, f.preflightErr = errNotAllowed, netns.Preflight{}, os.ErrNotExist
			},
			want: "host dnat nft [ipv4 ipv6]", reasons: []string{"mode host was asked for"},
		},
		{
			name: "pod", cfg: func(c *plan.Config) { c.Mode = plan.PodMode },
			want: "pod  nft [ipv4 ipv6]", reasons: []string{"mode pod was asked for"},
		},
		{
			name: "pod follows kube-proxy's backend", cfg: func(c *plan.Config) { c.Mode = plan.PodMode },
			node: func(b *redirecttest.Fixture, _ *fakeInfo) { b.Chain(netfilter.Legacy, "mangle", "KUBE-PROXY-CANARY") },
			want: "pod  legacy [ipv4 ipv6]", reasons: []string{"by iptables-legacy"},
		},
		{
			name: "pod where only the other backend works", cfg: func(c *plan.Config) { c.Mode = plan.PodMode },
			node: func(_ *redirecttest.Fixture, f *fakeInfo) { f.refuse(netfilter.NFT, family.V4) },
			want: "pod  legacy [ipv4 ipv6]", reasons: []string{"by iptables-legacy"},
		},
		{
			name: "pod where IPv6 is refused", cfg: func(c *plan.Config) { c.Mode = plan.PodMode },
			node: func(_ *redirecttest.Fixture, f *fakeInfo) { f.refuse(netfilter.NFT, family.V6) },
			want: "pod  nft [ipv4]", reasons: []string{"IPv6 is left alone: nft of ipv6: no REDIRECT"},
		},
		{
			name: "pod in a kernel without IPv6", cfg: func(c *plan.Config) { c.Mode = plan.PodMode },
			node: func(_ *redirecttest.Fixture, f *fakeInfo) {
				f.sysctl = map[string]string{"net/ipv6/conf/lo/disable_ipv6": ""}
			},
			want: "pod  nft [ipv4]", reasons: []string{"IPv6 is left alone: the kernel was started without it"},
		},
		{
			// A pod's namespace has settings of its own.
			name: "pod on a host that disabled IPv6", cfg: func(c *plan.Config) { c.Mode = plan.PodMode },
			node: func(_ *redirecttest.Fixture, f *fakeInfo) {
				f.sysctl = map[string]string{"net/ipv6/conf/lo/disable_ipv6": "1"}
			},
			want: "pod  nft [ipv4 ipv6]",
		},
		{
			name: "pod by processes", cfg: func(c *plan.Config) { c.Mode = plan.PodMode },
			node: func(_ *redirecttest.Fixture, f *fakeInfo) {
				f.preflight, f.preflightErr = netns.Preflight{Proc: true}, errors.New("/run/netns: denied")
			},
			want: "pod  nft [ipv4 ipv6]", reasons: []string{"can be found by the processes in them", "warning: not all places can be searched for pods' network namespaces: /run/netns: denied"},
		},
		{
			name: "pod with mounts that don't propagate", cfg: func(c *plan.Config) { c.Mode = plan.PodMode },
			node: func(_ *redirecttest.Fixture, f *fakeInfo) { f.preflight.Stale = []string{"/run/netns"} },
			want: "pod  nft [ipv4 ipv6]", reasons: []string{"warning: network namespaces of new pods won't show in /run/netns: mount it with propagation HostToContainer"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, f := redirecttest.New(t), newFakeInfo(t)
			b.Cfg = plan.DefaultConfig()
			b.Cfg.Mode = plan.AutoMode
			if tc.cfg != nil {
				tc.cfg(&b.Cfg)
			}
			if tc.node != nil {
				tc.node(b, f)
			}
			before := b.Dump()
			got, err := RunWith(t.Context(), b.Cfg, b.Kernel(), f)
			b.Must(err)
			if text := fmt.Sprintf("%s %s %s %v", got.Mode, got.Mechanism, got.Backend, got.Families); text != tc.want {
				t.Errorf("chose %q, want %q; %q", text, tc.want, got.Reasons)
			}
			said(t, got.Reasons, tc.reasons...)
			if after := b.Dump(); after != before {
				t.Errorf("the probe has left something:\n%s\nbefore:\n%s", after, before)
			}
			cfg := got.Resolve(b.Cfg)
			b.Must(cfg.Validate())
			if cfg.Mode != got.Mode || (cfg.Mechanism == plan.TPROXY) != (got.Mechanism == plan.TPROXY) {
				t.Errorf("resolved to mode %s, mechanism %s", cfg.Mode, cfg.Mechanism)
			}
		})
	}
}

// said checks that there is a reason with each of the texts, and none twice.
func said(t *testing.T, reasons []string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !slices.ContainsFunc(reasons, func(r string) bool { return strings.Contains(r, w) }) {
			t.Errorf("no reason %q in %q", w, reasons)
		}
	}
	for i, r := range reasons {
		if slices.Index(reasons, r) != i || strings.Contains(r, "\n") {
			t.Errorf("reason %q is there twice, or has several lines", r)
		}
	}
}

func TestProbeRefusesModes(t *testing.T) {
	blocked := func(b *redirecttest.Fixture, f *fakeInfo) { f.mode, b.Network.BridgePort = "nftables", "veth7" }
	for _, tc := range []struct {
		name string
		cfg  plan.Config
		node func(b *redirecttest.Fixture, f *fakeInfo)
		want []string
	}{
		{
			name: "auto names both lacks", cfg: plan.Config{Mode: plan.AutoMode},
			node: func(b *redirecttest.Fixture, f *fakeInfo) { blocked(b, f); f.refusal = errNotAllowed },
			want: []string{"neither mode", "capability SYS_ADMIN", "bridge-nf-call-iptables"},
		},
		{
			name: "pod names all its lacks", cfg: plan.Config{Mode: plan.PodMode},
			node: func(_ *redirecttest.Fixture, f *fakeInfo) {
				f.refusal, f.preflight, f.preflightErr = errNotAllowed, netns.Preflight{}, fmt.Errorf("/run/netns: %w", os.ErrNotExist)
			},
			want: []string{"capability SYS_ADMIN", "/run/netns: file does not exist", "HostToContainer"},
		},
		{
			name: "pod doesn't fall back", cfg: plan.Config{Mode: plan.PodMode},
			node: func(_ *redirecttest.Fixture, f *fakeInfo) { f.refusal = errNotAllowed }, want: []string{"no permission to enter network namespaces"},
		},
		{
			name: "host doesn't fall back", cfg: plan.Config{Mode: plan.HostMode}, node: blocked,
			want: []string{"bridge-nf-call-iptables"},
		},
		{
			name: "no more namespaces", cfg: plan.Config{Mode: plan.PodMode},
			node: func(_ *redirecttest.Fixture, f *fakeInfo) { f.refusal = syscall.ENOSPC },
			want: []string{"no network namespace can be made", "no space left on device", "user.max_net_namespaces"},
		},
		{
			name: "neither backend works in pods", cfg: plan.Config{Mode: plan.PodMode},
			node: func(_ *redirecttest.Fixture, f *fakeInfo) {
				f.refuse(netfilter.NFT, family.V4)
				f.refuse(netfilter.Legacy, family.V4)
			},
			want: []string{"modprobe", "xt_REDIRECT", "nft of ipv4: no REDIRECT", "legacy of ipv4: no REDIRECT"},
		},
		{
			name: "the backend that was asked for doesn't work in pods", cfg: plan.Config{Mode: plan.PodMode, Backend: netfilter.NFT},
			node: func(_ *redirecttest.Fixture, f *fakeInfo) { f.refuse(netfilter.NFT, family.V4) },
			want: []string{"xt_REDIRECT", "nft of ipv4: no REDIRECT"},
		},
		{
			name: "IPv6 alone, which pods refuse", cfg: plan.Config{Mode: plan.PodMode, Backend: netfilter.NFT, Families: []family.Family{family.V6}},
			node: func(_ *redirecttest.Fixture, f *fakeInfo) { f.refuse(netfilter.NFT, family.V6) },
			want: []string{"nft of ipv6: no REDIRECT"},
		},
		{
			name: "no iptables", cfg: plan.Config{Mode: plan.PodMode},
			node: func(b *redirecttest.Fixture, _ *fakeInfo) { b.Tables = nil }, want: []string{"no iptables-legacy", "install"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, f := redirecttest.New(t), newFakeInfo(t)
			b.Cfg = plan.DefaultConfig()
			b.Cfg.Mode = tc.cfg.Mode
			if tc.cfg.Backend != "" {
				b.Cfg.Backend = tc.cfg.Backend
			}
			if tc.cfg.Families != nil {
				b.Cfg.Families = tc.cfg.Families
			}
			tc.node(b, f)
			_, err := RunWith(t.Context(), b.Cfg, b.Kernel(), f)
			if _, ok := errors.AsType[*MissingRequirement](err); !ok {
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

func TestProbePrograms(t *testing.T) {
	connect := func(name string) []ebpf.Program { return []ebpf.Program{{Hook: "connect4", Name: name}} }
	for _, tc := range []struct {
		name      string
		onConnect []ebpf.Program
		unknown   error
		want      []string
	}{
		{name: "none", want: []string{"no eBPF program acts on connect", "no eBPF programs on pods' interfaces"}},
		{
			name: "not permitted", unknown: fmt.Errorf("%w: operation not permitted", ebpf.ErrUnknown),
			want: []string{
				"not known whether there are eBPF programs on pods' interfaces: the kernel doesn't tell: operation not permitted",
				"not known whether there is load balancing at the socket: the kernel doesn't tell",
			},
		},
		{
			name: "cilium", onConnect: connect("cil_sock4_connect"),
			want: []string{"warning: eBPF programs act on connect (connect4 cil_sock4_connect)", "address; Cilium needs socketLB.hostNamespaceOnly=true"},
		},
		{name: "calico", onConnect: connect("calico_connect_v4"), want: []string{"address; Calico needs bpfConnectTimeLoadBalancing: Disabled"}},
		{name: "nameless", onConnect: connect(""), want: []string{"(connect4)", "socketLB.hostNamespaceOnly=true", "bpfConnectTimeLoadBalancing"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, f := redirecttest.New(t), newFakeInfo(t)
			f.onConnect, f.unknown = tc.onConnect, tc.unknown
			for _, mode := range []plan.Mode{plan.HostMode, plan.PodMode, plan.AutoMode} {
				b.Cfg.Mode = mode
				got, err := RunWith(t.Context(), b.Cfg, b.Kernel(), f)
				b.Must(err)
				said(t, got.Reasons, tc.want...)
			}
		})
	}
}

// TestProbeIsInterrupted: a probe that is told to stop chooses nothing.
func TestProbeIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, mode := range []plan.Mode{plan.HostMode, plan.PodMode, plan.AutoMode} {
		b := redirecttest.New(t)
		b.Cfg.Mode = mode
		if _, err := RunWith(ctx, b.Cfg, b.Kernel(), newFakeInfo(t)); !errors.Is(err, context.Canceled) {
			t.Errorf("mode %s: %v, want the context's end", mode, err)
		}
	}
}
