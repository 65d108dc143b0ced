// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// Findings are what the probe learned of a node, and what it decided.
type Findings struct {
	Mode plan.Mode
	// Mechanism is HostMode's; empty in PodMode, which has only one way.
	Mechanism plan.Mechanism
	Backend   netfilter.Backend
	Families  []family.Family
	// ProxyMode is kube-proxy's: iptables, ipvs, nftables, or empty when there
	// is no sign of a kube-proxy.
	ProxyMode string
	// Uncounted is set where connections of pods can't be limited, and Unmeasured
	// where new ones in a second can't.
	Uncounted, Unmeasured bool
	// Unguarded is set where kube-proxy can lead connections past the host's firewall,
	// to what listens on all of the node's addresses: by a Service with an endpoint at
	// Envoy's address.
	Unguarded bool
	// Untracked is why the kernel's conntrack may not know of pods' connections to
	// Services; empty if nothing speaks for that.
	Untracked string
	// Reasons say, one sentence each, what was found and why it was decided so.
	Reasons []string
}

// Resolve puts the decisions into a configuration.
func (f Findings) Resolve(cfg plan.Config) plan.Config {
	cfg.Mode, cfg.Backend, cfg.Families = f.Mode, f.Backend, f.Families
	// What was asked of host mode means nothing to the other.
	cfg.Mechanism = cmp.Or(f.Mechanism, plan.AutoMechanism)
	cfg.Uncounted, cfg.Unmeasured, cfg.Unguarded = f.Uncounted, f.Unmeasured, f.Unguarded
	return cfg
}

// MissingRequirement is something that the node must have and does not have.
type MissingRequirement struct {
	// What is missing, and how to get it.
	What, Remedy string
	// Err is how it showed; may be nil.
	Err error
}

// Error is what, why and the remedy, in one line.
func (l *MissingRequirement) Error() string {
	if l.Err == nil {
		return fmt.Sprintf("%s: %s", l.What, l.Remedy)
	}
	return fmt.Sprintf("%s (%v): %s", l.What, l.Err, l.Remedy)
}

// Unwrap is how it showed.
func (l *MissingRequirement) Unwrap() error { return l.Err }

// Run looks at the node and decides what the configuration leaves open. The
// network namespaces of pods are to be found where namespaces says. An error joins a
// MissingRequirement for each thing without which nothing can be redirected. What
// can't be told is tried again for a minute; then the error wraps ErrUnknown.
func Run(ctx context.Context, cfg plan.Config, namespaces netns.Config, log *zap.Logger) (Findings, error) {
	return retryUnknown(ctx, log, func() (Findings, error) {
		k, err := apply.OpenKernel()
		if err != nil {
			d := &doubt{}
			return d.result(Findings{}, d.judge(err))
		}
		found, err := RunWith(ctx, cfg, k, nodeInfo{namespaces})
		return found, errors.Join(err, k.Close())
	})
}

// RunWith is Run for a kernel that is open already, or a fake one, and tries once.
func RunWith(ctx context.Context, cfg plan.Config, k apply.Kernel, info HostInfo) (Findings, error) {
	p := &prober{cfg: cfg, kernel: k, info: info, doubt: &doubt{}}
	p.kernel.Tables = p.watch(k.Tables)
	p.proxyMode(ctx)
	p.bridge()
	p.podPrograms()
	p.connectPrograms()
	err := p.chooseMode(ctx)
	return p.result(p.found, err)
}

type prober struct {
	cfg    plan.Config
	kernel apply.Kernel
	info   HostInfo
	*doubt
	// onPods are the eBPF programs on pods' interfaces, in words.
	onPods string
	found  Findings
}

// note records a reason, once.
func (p *prober) note(format string, args ...any) {
	reason := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	if !slices.Contains(p.found.Reasons, reason) {
		p.found.Reasons = append(p.found.Reasons, reason)
	}
}

// ipset looks whether the kernel has sets, and lets this process use them.
func (p *prober) ipset() error {
	version, err := p.kernel.Sets.Protocol()
	if errors.Is(err, os.ErrPermission) {
		return notPermitted(err)
	}
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.EOPNOTSUPP) {
		return &MissingRequirement{"the kernel has no ipset", "modprobe ip_set ip_set_hash_ip ip_set_hash_ipport xt_set", err}
	}
	if err != nil {
		return p.judge(fmt.Errorf("ask the kernel for ipset: %w", err))
	}
	p.note("the kernel's ipset speaks protocol %d", version)
	return nil
}

// notPermitted is the missing requirement of every use of the kernel's tables needs.
func notPermitted(err error) *MissingRequirement {
	return &MissingRequirement{"no permission to use the kernel's tables", "run as root with the capabilities NET_ADMIN and NET_RAW, in the host's network namespace", err}
}

// backend follows kube-proxy, then whoever has rules already; else it is nft.
func (p *prober) backend(ctx context.Context) error {
	p.found.Backend = p.cfg.Backend
	if p.cfg.Backend != netfilter.AutoBackend {
		p.note("iptables backend %s was asked for", p.cfg.Backend)
	} else if err := p.chooseBackend(ctx); errors.Is(err, os.ErrPermission) {
		return notPermitted(err)
	} else if err != nil {
		return err
	}
	if _, err := p.kernel.TablesOf(p.found.Backend, family.V4); err != nil {
		return &MissingRequirement{"no iptables-" + p.found.Backend.String(), "install the package iptables of the image or host (apt install iptables)", err}
	}
	return nil
}

func (p *prober) chooseBackend(ctx context.Context) error {
	// Chains that kubelet or kube-proxy make, so that others can tell which backend
	// is in use.
	hints := []string{"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY", "KUBE-PROXY-CANARY"}
	var inUse []netfilter.Backend
	for _, t := range p.kernel.Tables {
		for _, hint := range hints {
			_, err := t.List(ctx, "mangle", hint)
			if iptables.Present(err) {
				p.found.Backend = t.Backend()
				p.note("iptables backend %s: chain %s is there", t.Backend(), hint)
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
	p.found.Backend = netfilter.NFT
	_, noNFT := p.kernel.TablesOf(netfilter.NFT, family.V4)
	switch {
	case noNFT != nil:
		p.found.Backend = netfilter.Legacy
		p.note("iptables backend legacy: there is no iptables-nft")
	case slices.Contains(inUse, netfilter.Legacy) && !slices.Contains(inUse, netfilter.NFT):
		p.found.Backend = netfilter.Legacy
		p.note("iptables backend legacy: only it has rules")
	default:
		p.note("iptables backend nft: there is no sign of what kube-proxy uses")
	}
	return nil
}

// hasRules says whether anybody uses the backend.
func hasRules(ctx context.Context, t apply.Tables) (bool, error) {
	for _, h := range []plan.Hook{{Table: "nat", Chain: "PREROUTING"}, {Table: "nat", Chain: "POSTROUTING"}, {Table: "filter", Chain: "INPUT"}, {Table: "filter", Chain: "FORWARD"}} {
		rules, err := t.List(ctx, h.Table, h.Chain)
		if !iptables.Present(err) {
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
			if why := p.whyNoIPv6(ctx); why != "" {
				p.note("IPv6 is left alone: %s", why)
				continue
			}
		}
		p.found.Families = append(p.found.Families, f)
	}
}

func (p *prober) whyNoIPv6(ctx context.Context) string {
	disabled, err := p.info.Sysctl("net/ipv6/conf/lo/disable_ipv6")
	switch {
	case p.judge(err) != nil:
		return err.Error()
	case disabled == "":
		return errNoIPv6.Error()
	case disabled != "0":
		return "it is disabled on lo"
	}
	t, err := p.kernel.TablesOf(p.found.Backend, family.V6)
	if err == nil {
		_, err = t.List(ctx, "filter", "INPUT")
	}
	if !iptables.Present(err) {
		return err.Error()
	}
	return ""
}
