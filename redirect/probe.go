// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// Findings are what the probe learned of a node, and what it decided.
type Findings struct {
	Mode Mode
	// Mechanism is HostMode's; empty in PodMode, which has but one way.
	Mechanism Mechanism
	Backend   iptables.Backend
	Families  []family.Family
	// ProxyMode is kube-proxy's: iptables, ipvs, nftables, or empty when there
	// is no sign of a kube-proxy.
	ProxyMode string
	// Reasons say, one sentence each, what was found and why it was decided so.
	Reasons []string
}

// Resolve puts the decisions into a configuration.
func (f Findings) Resolve(cfg Config) Config {
	cfg.Mode, cfg.Backend, cfg.Families = f.Mode, f.Backend, f.Families
	// What was asked of host mode means nothing to the other.
	cfg.Mechanism = cmp.Or(f.Mechanism, AutoMechanism)
	return cfg
}

// Lack is something that the node must have and has not.
type Lack struct {
	// What is missing, and how to get it.
	What, Remedy string
	// Err is how it showed; may be nil.
	Err error
}

// Error is what, why and the remedy, in one line.
func (l *Lack) Error() string {
	if l.Err == nil {
		return fmt.Sprintf("%s: %s", l.What, l.Remedy)
	}
	return fmt.Sprintf("%s (%v): %s", l.What, l.Err, l.Remedy)
}

// Unwrap is how it showed.
func (l *Lack) Unwrap() error { return l.Err }

// Probe looks at the node and decides what the configuration leaves open. The
// network namespaces of pods are to be found where spaces says. An error joins a
// Lack for each thing without which nothing can be redirected.
func Probe(ctx context.Context, cfg Config, spaces netns.Config) (Findings, error) {
	k, err := openKernel()
	if err != nil {
		return Findings{}, err
	}
	found, err := ProbeFor(ctx, cfg, k, nodeFacts{spaces})
	return found, errors.Join(err, k.Close())
}

// ProbeFor is Probe for a kernel that is open already, or a fake one.
func ProbeFor(ctx context.Context, cfg Config, k Kernel, facts Facts) (Findings, error) {
	p := &prober{cfg: cfg, kernel: k, facts: facts}
	p.proxyMode(ctx)
	p.bridge()
	p.podPrograms()
	p.connectPrograms()
	err := p.mode(ctx)
	return p.found, err
}

type prober struct {
	cfg    Config
	kernel Kernel
	facts  Facts
	// onPods are the eBPF programs on pods' interfaces, in words.
	onPods string
	found  Findings
}

// because notes a reason, once.
func (p *prober) because(format string, args ...any) {
	reason := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	if !slices.Contains(p.found.Reasons, reason) {
		p.found.Reasons = append(p.found.Reasons, reason)
	}
}

// ipset looks whether the kernel has sets, and lets this process use them.
func (p *prober) ipset() error {
	version, err := p.kernel.Sets.Protocol()
	if errors.Is(err, errPermission) {
		return notPermitted(err)
	}
	if err != nil {
		return &Lack{"the kernel has no ipset", "modprobe ip_set ip_set_hash_ip ip_set_hash_ipport xt_set", err}
	}
	p.because("the kernel's ipset speaks protocol %d", version)
	return nil
}

// notPermitted is the lack of what every use of the kernel's tables needs.
func notPermitted(err error) *Lack {
	return &Lack{"no permission to use the kernel's tables", "run as root with the capabilities NET_ADMIN and NET_RAW, in the host's network namespace", err}
}

// hints are chains that kubelet or kube-proxy make in table mangle, so that
// others can tell which backend is in use.
func hints() []string {
	return []string{"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY", "KUBE-PROXY-CANARY"}
}

// backend follows kube-proxy, then whoever has rules already; else it is nft.
func (p *prober) backend(ctx context.Context) error {
	p.found.Backend = p.cfg.Backend
	if p.cfg.Backend != iptables.AutoBackend {
		p.because("iptables backend %s was asked for", p.cfg.Backend)
	} else if err := p.chooseBackend(ctx); errors.Is(err, errPermission) {
		return notPermitted(err)
	} else if err != nil {
		return err
	}
	if _, err := p.kernel.tables(p.found.Backend, family.V4); err != nil {
		return &Lack{"no iptables-" + p.found.Backend.String(), "install the package iptables of the image or host (apt install iptables)", err}
	}
	return nil
}

func (p *prober) chooseBackend(ctx context.Context) error {
	var inUse []iptables.Backend
	for _, t := range p.kernel.Tables {
		for _, hint := range hints() {
			_, err := t.List(ctx, "mangle", hint)
			if err == nil || errors.Is(err, iptables.ErrUnreadable) {
				p.found.Backend = t.Backend()
				p.because("iptables backend %s: chain %s is there", t.Backend(), hint)
				return nil
			}
			if !errors.Is(err, iptables.ErrNotFound) {
				return err
			}
		}
		if used, err := hasRules(ctx, t); err != nil {
			return err
		} else if used {
			inUse = append(inUse, t.Backend())
		}
	}
	p.found.Backend = iptables.NFT
	_, noNFT := p.kernel.tables(iptables.NFT, family.V4)
	switch {
	case noNFT != nil:
		p.found.Backend = iptables.Legacy
		p.because("iptables backend legacy: there is no iptables-nft")
	case slices.Contains(inUse, iptables.Legacy) && !slices.Contains(inUse, iptables.NFT):
		p.found.Backend = iptables.Legacy
		p.because("iptables backend legacy: only it has rules")
	default:
		p.because("iptables backend nft: there is no sign of what kube-proxy uses")
	}
	return nil
}

// hasRules says whether anybody uses the backend.
func hasRules(ctx context.Context, t Tables) (bool, error) {
	for _, h := range []hook{{Table: "nat", Chain: "PREROUTING"}, {Table: "nat", Chain: "POSTROUTING"}, {Table: "filter", Chain: "INPUT"}, {Table: "filter", Chain: "FORWARD"}} {
		rules, err := t.List(ctx, h.Table, h.Chain)
		if err != nil && !errors.Is(err, iptables.ErrUnreadable) {
			return false, err
		}
		if len(rules) > 0 || err != nil {
			return true, nil
		}
	}
	return false, nil
}

// families leaves out IPv6 where the node lacks it; IPv4 never depends on it.
func (p *prober) families(ctx context.Context) {
	for _, f := range p.cfg.Families {
		if f == family.V6 {
			if why := p.lacksIPv6(ctx); why != "" {
				p.because("IPv6 is left alone: %s", why)
				continue
			}
		}
		p.found.Families = append(p.found.Families, f)
	}
}

func (p *prober) lacksIPv6(ctx context.Context) string {
	switch p.facts.Sysctl("net/ipv6/conf/lo/disable_ipv6") {
	case "0":
	case "":
		return "the kernel was started without it"
	default:
		return "it is disabled on lo"
	}
	t, err := p.kernel.tables(p.found.Backend, family.V6)
	if err == nil {
		_, err = t.List(ctx, "filter", "INPUT")
	}
	if err != nil {
		return err.Error()
	}
	return ""
}
