// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// chooseMode chooses where connections are redirected: where it was told to, or in the
// pods if that can be, else on the host.
func (p *prober) chooseMode(ctx context.Context) error {
	switch p.cfg.Mode {
	case plan.PodMode:
		p.note("mode pod was asked for")
		return p.podMode(ctx)
	case plan.AutoMode:
	default:
		p.note("mode host was asked for")
		return p.hostMode(ctx)
	}
	podErr := p.podMode(ctx)
	if podErr == nil {
		p.note("mode pod: the node has what it needs; it goes with every CNI and kube-proxy, and backends see the pods' own addresses")
		return nil
	}
	p.note("mode pod can't be used: %v", podErr)
	hostErr := p.hostMode(ctx)
	if hostErr == nil {
		p.note("mode host: the node has what it needs")
		return nil
	}
	return fmt.Errorf("neither mode of redirection can be used: pod: %w; host: %w", podErr, hostErr)
}

func (p *prober) hostMode(ctx context.Context) error {
	p.found.Mode, p.found.Families = plan.HostMode, nil
	if err := p.ipset(); err != nil {
		return err
	}
	if err := p.backend(ctx); err != nil {
		return err
	}
	p.families(ctx)
	if err := p.mechanism(); err != nil {
		return err
	}
	if p.onPods != "" {
		p.note("warning: host mode redirects nothing that the eBPF programs on pods' interfaces (%s) take past the host's iptables, as those of CNIs do: mode pod doesn't depend on it", p.onPods)
	}
	return p.extensions(ctx)
}

func (p *prober) mechanism() error {
	nft := p.found.ProxyMode == "nftables"
	p.found.Mechanism = p.cfg.Mechanism
	switch {
	case p.cfg.Mechanism == plan.AutoMechanism && nft:
		p.found.Mechanism = plan.TPROXY
		p.note("mechanism tproxy: kube-proxy's nat chains have the priority of iptables-nft's, so which comes first is undefined")
	case p.cfg.Mechanism == plan.AutoMechanism:
		p.found.Mechanism = plan.DNAT
		p.note("mechanism dnat: nothing is in its way")
	default:
		p.note("mechanism %s was asked for", p.cfg.Mechanism)
		if p.cfg.Mechanism == plan.DNAT && nft {
			p.note("warning: kube-proxy's nftables nat may translate connections before dnat does; tproxy avoids that")
		}
	}
	if p.found.Mechanism == plan.TPROXY {
		return p.tproxy()
	}
	return nil
}

// tproxy looks for what is in tproxy's way.
func (p *prober) tproxy() error {
	if err := p.kernel.CheckBridges(p.found.Families); err != nil && !errors.Is(err, apply.ErrBridged) {
		return p.judge(err)
	} else if err != nil {
		return &MissingRequirement{"mechanism tproxy can't work here", "set net.bridge.bridge-nf-call-iptables and bridge-nf-call-ip6tables to 0, or run kube-proxy in iptables or ipvs mode and use dnat", err}
	}
	if valid, err := p.info.Sysctl("net/ipv4/conf/all/src_valid_mark"); p.judge(err) == nil && valid == "1" {
		p.note("warning: net.ipv4.conf.all.src_valid_mark is 1, so the check of source addresses follows tproxy's route and may drop what it should let through")
	}
	for _, f := range p.found.Families {
		marks, err := p.kernel.Network.Marks(f)
		if err != nil {
			return p.judge(err)
		}
		for _, m := range marks {
			if m.Mask&p.cfg.Mark != 0 && m.Table != p.cfg.Table {
				p.note("warning: %s policy rule %d looks at mark bits %#x, which tproxy uses: choose another mark", f, m.Priority, m.Mask&p.cfg.Mark)
			}
		}
	}
	return nil
}

// extensions lets iptables check the very rules that will be written, with a
// set made for the purpose.
func (p *prober) extensions(ctx context.Context) error {
	cfg := p.found.Resolve(p.cfg)
	cfg.Uncounted, cfg.Unmeasured, cfg.Unguarded = true, true, true
	desired := plan.Compile(&model.Node{}, cfg)
	var kept []family.Family
	for i := range desired.Families {
		f := &desired.Families[i]
		err := p.judge(p.tryRules(ctx, f))
		if err != nil && f.Family == family.V4 {
			return &MissingRequirement{"iptables or the kernel lacks something that the rules need", "modprobe xt_set xt_conntrack ipt_REJECT, for tproxy also xt_TPROXY xt_socket xt_CT; and run with the capability NET_RAW", err}
		}
		if err != nil {
			p.note("IPv6 is left alone: %v", err)
			continue
		}
		kept = append(kept, f.Family)
	}
	p.found.Families = kept
	try := func(cfg plan.Config) error {
		desired := plan.Compile(&model.Node{}, cfg)
		var errs []error
		for i := range desired.Families {
			errs = append(errs, p.tryRules(ctx, &desired.Families[i]))
		}
		return errors.Join(errs...)
	}
	if err := p.guard(try); err != nil {
		return err
	}
	return p.limit(try)
}

// guard decides whether connections that kube-proxy leads to Envoy's address reach
// only Envoy, given what tries the rules that do it. With tproxy they reach nobody.
func (p *prober) guard(try func(plan.Config) error) error {
	cfg := p.found.Resolve(p.cfg)
	if cfg.Mechanism == plan.TPROXY {
		return nil
	}
	cfg.Uncounted, cfg.Unmeasured = true, true
	guarded, err := p.has("socket", "a Service with an endpoint at Envoy's address reaches what listens on all addresses of the node", try, cfg)
	p.found.Unguarded = err == nil && !guarded
	return err
}

// limit decides whether connections of pods are limited, and their rate, given what
// tries the rules that do it. They are redirected in any case. The error is one that is
// no answer.
func (p *prober) limit(try func(plan.Config) error) error {
	cfg := p.found.Resolve(p.cfg)
	count, measure := cfg, cfg
	count.Unmeasured, measure.Uncounted = true, true
	if cfg.MaxConnections == 0 {
		p.note("connections of a pod are not limited: that was asked for")
	} else {
		limited, err := p.limitBy("connlimit", "connections of a pod", try, count)
		if err != nil {
			return err
		}
		if p.found.Uncounted = !limited; limited {
			p.note("at most %d connections of a pod are redirected at a time", cfg.MaxConnections)
		}
	}
	if cfg.MaxConnectionRate == 0 {
		return nil
	}
	limited, err := p.limitBy("hashlimit", "connections of a pod in a second", try, measure)
	if err != nil {
		return err
	}
	if p.found.Unmeasured = !limited; limited {
		p.note("at most %d connections of a pod are redirected in a second", cfg.MaxConnectionRate)
	}
	return nil
}

// limitBy is whether a match limits something of a pod, given what tries rules and the
// configuration of those that limit nothing else. Why not is noted.
func (p *prober) limitBy(match, what string, try func(plan.Config) error, cfg plan.Config) (bool, error) {
	if !cfg.Limited() && !cfg.RateLimited() {
		p.note("warning: %s are not limited: with mechanism tproxy, conntrack knows nothing of them", what)
		return false, nil
	}
	return p.has(match, what+" are not limited", try, cfg)
}

// has is whether the rules of cfg can be had, which need a match. What follows where
// the kernel or iptables lacks it is noted.
func (p *prober) has(match, without string, try func(plan.Config) error, cfg plan.Config) (bool, error) {
	err := p.judge(try(cfg))
	if err != nil && isAnswer(err) {
		p.note("warning: %s, for want of the match %[2]s (modprobe xt_%[2]s): %[3]v", without, match, err)
		return false, nil
	}
	return err == nil, err
}

func (p *prober) tryRules(ctx context.Context, f *plan.FamilyPlan) error {
	tables, err := p.kernel.TablesOf(p.found.Backend, f.Family)
	if err != nil {
		return err
	}
	spec := netfilter.SetSpec{Name: plan.ProbeSet(f.Family), Type: netfilter.HashIPPort, Family: f.Family, MaxElements: 1}
	if err := errors.Join(p.kernel.Sets.Destroy(spec.Name), p.kernel.Sets.Create(spec)); err != nil {
		return err
	}
	text := f.RenderRules()
	for _, s := range f.Sets() {
		text = strings.ReplaceAll(text, "-set "+s.Name+" ", "-set "+spec.Name+" ")
	}
	return errors.Join(tables.Test(ctx, text), p.kernel.Sets.Destroy(spec.Name))
}
