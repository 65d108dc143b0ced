// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
)

// errPermission is any EPERM or EACCES.
var errPermission = os.ErrPermission

// errBridged says why tproxy can't be used: measured, packets match the rule
// and are then lost.
var errBridged = errors.New("bridged frames pass through iptables, which loses what TPROXY takes")

// mode chooses where connections are redirected: where it was told to, or in the
// pods if that can be, else on the host.
func (p *prober) mode(ctx context.Context) error {
	switch p.cfg.Mode {
	case PodMode:
		p.because("mode pod was asked for")
		return p.inside(ctx)
	case AutoMode:
	default:
		p.because("mode host was asked for")
		return p.host(ctx)
	}
	inside := p.inside(ctx)
	if inside == nil {
		p.because("mode pod: the node has what it needs; it goes with every CNI and kube-proxy, and backends see the pods' own addresses")
		return nil
	}
	p.because("mode pod can't be used: %v", inside)
	host := p.host(ctx)
	if host == nil {
		p.because("mode host: the node has what it needs")
		return nil
	}
	return fmt.Errorf("neither mode of redirection can be used: pod: %w; host: %w", inside, host)
}

// host looks for what HostMode needs.
func (p *prober) host(ctx context.Context) error {
	p.found.Mode, p.found.Families = HostMode, nil
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
		p.because("warning: host mode redirects nothing that the eBPF programs on pods' interfaces (%s) take past the host's iptables, as those of CNIs do: mode pod doesn't depend on it", p.onPods)
	}
	return p.extensions(ctx)
}

// mechanism chooses how connections get to Envoy.
func (p *prober) mechanism() error {
	nft := p.found.ProxyMode == "nftables"
	p.found.Mechanism = p.cfg.Mechanism
	switch {
	case p.cfg.Mechanism == AutoMechanism && nft:
		p.found.Mechanism = TPROXY
		p.because("mechanism tproxy: kube-proxy's nat chains have the priority of iptables-nft's, so which comes first is undefined")
	case p.cfg.Mechanism == AutoMechanism:
		p.found.Mechanism = DNAT
		p.because("mechanism dnat: nothing is in its way")
	default:
		p.because("mechanism %s was asked for", p.cfg.Mechanism)
		if p.cfg.Mechanism == DNAT && nft {
			p.because("warning: kube-proxy's nftables nat may translate connections before dnat does; tproxy has not this doubt")
		}
	}
	if p.found.Mechanism == TPROXY {
		return p.tproxy()
	}
	return nil
}

// tproxy looks for what is in tproxy's way.
func (p *prober) tproxy() error {
	if err := bridged(p.kernel, p.found.Families); err != nil {
		return &Lack{"mechanism tproxy can't work here", "set net.bridge.bridge-nf-call-iptables and bridge-nf-call-ip6tables to 0, or run kube-proxy in iptables or ipvs mode and use dnat", err}
	}
	if p.facts.Sysctl("net/ipv4/conf/all/src_valid_mark") == "1" {
		p.because("warning: net.ipv4.conf.all.src_valid_mark is 1, so the check of source addresses follows tproxy's route and may drop what it should let through")
	}
	for _, f := range p.found.Families {
		marks, err := p.kernel.Network.Marks(f)
		if err != nil {
			return err
		}
		for _, m := range marks {
			if m.Mask&p.cfg.Mark != 0 && m.Table != p.cfg.Table {
				p.because("warning: %s policy rule %d looks at mark bits %#x, which tproxy uses: choose another mark", f, m.Priority, m.Mask&p.cfg.Mark)
			}
		}
	}
	return nil
}

// bridged returns errBridged, with the interface, when pods are behind a bridge
// whose frames iptables sees.
func bridged(k Kernel, families []family.Family) error {
	for _, f := range families {
		port, err := k.Network.Bridged(f)
		if err != nil {
			return err
		}
		if port != "" {
			return fmt.Errorf("interface %s: %w", port, errBridged)
		}
	}
	return nil
}

// extensions lets iptables check the very rules that will be written, with a
// set made for the purpose.
func (p *prober) extensions(ctx context.Context) error {
	cfg := p.found.Resolve(p.cfg)
	plan := Compile(&model.Node{}, cfg)
	var kept []family.Family
	for i := range plan.Families {
		f := &plan.Families[i]
		err := p.tryRules(ctx, f)
		if err != nil && f.Family == family.V4 {
			return &Lack{"iptables or the kernel lacks something that the rules need", "modprobe xt_set xt_conntrack ipt_REJECT, for tproxy also xt_TPROXY xt_socket xt_CT; and run with the capability NET_RAW", err}
		}
		if err != nil {
			p.because("IPv6 is left alone: %v", err)
			continue
		}
		kept = append(kept, f.Family)
	}
	p.found.Families = kept
	return nil
}

func (p *prober) tryRules(ctx context.Context, f *FamilyPlan) error {
	tables, err := p.kernel.tables(p.found.Backend, f.Family)
	if err != nil {
		return err
	}
	spec := ipset.Spec{Name: probeSet(f.Family), Type: ipset.HashIPPort, Family: f.Family, MaxElements: 1}
	if err := errors.Join(p.kernel.Sets.Destroy(spec.Name), p.kernel.Sets.Create(spec)); err != nil {
		return err
	}
	text := f.RenderRules()
	for _, s := range f.sets() {
		text = strings.ReplaceAll(text, "--match-set "+s.Name+" ", "--match-set "+spec.Name+" ")
	}
	return errors.Join(tables.Test(ctx, text), p.kernel.Sets.Destroy(spec.Name))
}
