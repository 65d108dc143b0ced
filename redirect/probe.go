// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/iptables"
)

// Findings are what the probe learned of a node, and what it decided.
type Findings struct {
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
	cfg.Mechanism, cfg.Backend, cfg.Families = f.Mechanism, f.Backend, f.Families
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

// Probe looks at the node and decides what the configuration leaves open. An
// error joins a Lack for each thing without which nothing can be redirected.
func Probe(ctx context.Context, cfg Config) (Findings, error) {
	k, err := openKernel()
	if err != nil {
		return Findings{}, err
	}
	found, err := ProbeFor(ctx, cfg, k, nodeFacts{})
	return found, errors.Join(err, k.Close())
}

// ProbeFor is Probe for a kernel that is open already, or a fake one.
func ProbeFor(ctx context.Context, cfg Config, k Kernel, facts Facts) (Findings, error) {
	p := &prober{cfg: cfg, kernel: k, facts: facts}
	if err := p.ipset(); err != nil {
		return p.found, err
	}
	if err := p.backend(ctx); err != nil {
		return p.found, err
	}
	p.families(ctx)
	p.proxyMode(ctx)
	if err := p.mechanism(); err != nil {
		return p.found, err
	}
	return p.found, p.extensions(ctx)
}

type prober struct {
	cfg    Config
	kernel Kernel
	facts  Facts
	found  Findings
}

func (p *prober) because(format string, args ...any) {
	p.found.Reasons = append(p.found.Reasons, fmt.Sprintf(format, args...))
}

// ipset looks whether the kernel has sets, and lets this process use them.
func (p *prober) ipset() error {
	version, err := p.kernel.Sets.Protocol()
	if errors.Is(err, errPermission) {
		return &Lack{"no permission to use the kernel's tables", "run as root with the capabilities NET_ADMIN and NET_RAW, in the host's network namespace", err}
	}
	if err != nil {
		return &Lack{"the kernel has no ipset", "modprobe ip_set ip_set_hash_ip ip_set_hash_ipport xt_set", err}
	}
	p.because("the kernel's ipset speaks protocol %d", version)
	return nil
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
	} else if err := p.chooseBackend(ctx); err != nil {
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

// proxyMode looks for what each mode of kube-proxy leaves in the kernel.
func (p *prober) proxyMode(ctx context.Context) {
	for _, f := range family.All() {
		if names, err := p.facts.NFTables(f); err == nil && slices.Contains(names, "kube-proxy") {
			p.found.ProxyMode = "nftables"
			p.because("kube-proxy is in nftables mode: nf_tables has its table")
			return
		}
	}
	if names, err := p.kernel.Sets.Names(); err == nil && slices.Contains(names, "KUBE-CLUSTER-IP") {
		p.found.ProxyMode = "ipvs"
		p.because("kube-proxy is in ipvs mode: its sets are there")
		return
	}
	for _, t := range p.kernel.Tables {
		if _, err := t.List(ctx, "nat", "KUBE-SERVICES"); err == nil {
			p.found.ProxyMode = "iptables"
			p.because("kube-proxy is in iptables mode: chain KUBE-SERVICES is there")
			return
		}
	}
	if p.found.ProxyMode = p.facts.ProxyMode(ctx); p.found.ProxyMode != "" {
		p.because("kube-proxy says it is in %s mode", p.found.ProxyMode)
		return
	}
	p.because("there is no sign of a kube-proxy")
}
