// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"strings"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// podMode looks for what PodMode needs, and tries it in a network namespace that
// is made for it. What it decides is kept only if nothing is missing.
func (p *prober) podMode(ctx context.Context) error {
	if err := errors.Join(p.findNamespaces(), p.tryNamespace(ctx)); err != nil {
		p.found.Backend, p.found.Families = "", nil
		return err
	}
	p.found.Mode = plan.PodMode
	if p.cfg.Mechanism != plan.AutoMechanism {
		p.note("mechanism %s is host mode's: in pods there is only one way", p.cfg.Mechanism)
	}
	return p.limit(func(cfg plan.Config) error {
		return p.info.Scratch(func(k apply.Kernel) error {
			var errs []error
			for _, f := range examplePod(cfg).Families {
				errs = append(errs, p.tryPodFamily(ctx, k, cfg.Backend, &f))
			}
			return errors.Join(errs...)
		})
	})
}

// examplePod is the plan of a pod with an address of each family.
func examplePod(cfg plan.Config) plan.PodPlan {
	return plan.Compile(&model.Node{Pods: []model.Pod{{
		Name: "probe", Enrolled: true,
		// Documentation addresses (RFC 5737, RFC 3849).
		IPs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1})},
	}}}, cfg).Pods[0]
}

// findNamespaces looks whether pods' network namespaces can be found.
func (p *prober) findNamespaces() error {
	s, err := p.info.Namespaces()
	if len(s.Dirs) == 0 && !s.Proc {
		return &MissingRequirement{"pods' network namespaces are not to be seen", "mount the directory in which the container runtime has them, /run/netns for most, at the same path for the agent and Envoy, with propagation HostToContainer", p.judge(err)}
	}
	if err != nil {
		p.note("warning: not all places can be searched for pods' network namespaces: %v", err)
	}
	if len(s.Dirs) > 0 {
		p.note("network namespaces can be found in %s, %d now", strings.Join(s.Dirs, ", "), s.Namespaces)
	}
	if s.Proc {
		p.note("network namespaces can be found by the processes in them")
	}
	for _, dir := range s.Stale {
		p.note("warning: network namespaces of new pods won't show in %s: mount it with propagation HostToContainer", dir)
	}
	return nil
}

// tryNamespace looks whether network namespaces can be entered, and what they take.
func (p *prober) tryNamespace(ctx context.Context) error {
	err := p.judge(p.info.Scratch(func(apply.Kernel) error { return nil }))
	if errors.Is(err, netns.ErrNotPermitted) {
		return &MissingRequirement{"no permission to enter network namespaces", "run as root with the capability SYS_ADMIN, and no seccomp, AppArmor or SELinux rule against setns and unshare", err}
	}
	if err != nil {
		return &MissingRequirement{"no network namespace can be made to try the rules in", "see the sysctl user.max_net_namespaces", err}
	}
	return p.tryPodRules(ctx)
}

// tryPodRules tries the rules in a network namespace, with the backend that the
// host uses and, unless that was asked for, with the other: a pod's namespace is
// nobody else's, so the kernel alone decides.
func (p *prober) tryPodRules(ctx context.Context) error {
	if err := p.backend(ctx); err != nil {
		return err
	}
	backends := []netfilter.Backend{p.found.Backend}
	if p.cfg.Backend == netfilter.AutoBackend {
		other := map[netfilter.Backend]netfilter.Backend{netfilter.NFT: netfilter.Legacy, netfilter.Legacy: netfilter.NFT}[p.found.Backend]
		if _, err := p.kernel.TablesOf(other, family.V4); err == nil {
			backends = append(backends, other)
		}
	}
	var errs []error
	for _, b := range backends {
		err := p.judge(p.info.Scratch(func(k apply.Kernel) error { return p.tryPodBackend(ctx, k, b) }))
		if err == nil {
			p.found.Backend = b
			p.note("this process may enter network namespaces (capability SYS_ADMIN), and the kernel takes the rules there, by iptables-%s", b)
			return nil
		}
		errs = append(errs, err)
	}
	return &MissingRequirement{"iptables or the kernel lacks something that the rules in pods need", "modprobe ip_set_hash_ip ip_set_hash_ipport xt_set xt_mark xt_REDIRECT nf_nat; and run with the capabilities NET_ADMIN and NET_RAW", errors.Join(errs...)}
}

// tryPodBackend writes the rules of a pod in k, for each family, and leaves them
// there. IPv4 never depends on IPv6.
func (p *prober) tryPodBackend(ctx context.Context, k apply.Kernel, b netfilter.Backend) error {
	cfg := p.cfg
	cfg.Mode, cfg.Backend, cfg.Uncounted, cfg.Unmeasured = plan.PodMode, b, true, true
	p.found.Families = nil
	var lost error
	for _, f := range examplePod(cfg).Families {
		err := p.tryPodFamily(ctx, k, b, &f)
		switch {
		case err == nil:
			p.found.Families = append(p.found.Families, f.Family)
		case f.Family == family.V4:
			return err
		default:
			lost = err
		}
	}
	if lost != nil && len(p.found.Families) == 0 {
		return lost
	}
	if lost != nil {
		p.note("IPv6 is left alone: %v", lost)
	}
	return nil
}

func (p *prober) tryPodFamily(ctx context.Context, k apply.Kernel, b netfilter.Backend, f *plan.FamilyPlan) error {
	if f.Family == family.V6 {
		if disabled, err := p.info.Sysctl("net/ipv6/conf/lo/disable_ipv6"); p.judge(err) != nil || disabled == "" {
			return cmp.Or(err, errNoIPv6)
		}
	}
	k.Tables = p.watch(k.Tables)
	tables, err := k.TablesOf(b, f.Family)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range f.Sets() {
		errs = append(errs, k.Sets.Create(s.SetSpec))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return tables.Restore(ctx, f.RenderRules())
}
