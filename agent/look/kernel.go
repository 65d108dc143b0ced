// SPDX-License-Identifier: Apache-2.0

package look

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/nodevoy/nodevoy/agent/why"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/tracer"
)

// Target is what to look for in the kernel.
type Target struct {
	// Plan is what the network namespace is to hold.
	Plan    plan.FamilyPlan
	Backend netfilter.Backend
	// InPod is set for the network namespace of a pod, which may hold any number of
	// rules and sets of the pod's own.
	InPod bool
	From  netip.Addr
	To    netip.AddrPort
	// Trace are the rules that the connection is to match.
	Trace tracer.Verdict
}

// Kernel reads what the network namespace that the thread is in has for a target.
func Kernel(ctx context.Context, t Target) (*why.Kernel, error) {
	k := &why.Kernel{}
	err := t.readSets(k)
	if err == nil {
		err = t.readRules(ctx, k)
	}
	return k, err
}

func (t *Target) readSets(k *why.Kernel) (err error) {
	opened, err := ipset.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	sets := opened
	if t.InPod {
		sets = opened.Untrusted()
	}
	source := netip.AddrPortFrom(t.From, 0)
	if k.Source, err = expiring(sets, t.Plan.Pods.SetSpec, source); err != nil {
		return err
	}
	if t.Plan.Full != nil {
		full, err := expiring(sets, t.Plan.Full.SetSpec, source)
		if err != nil {
			return err
		}
		k.Full = &full
	}
	for i := range t.Plan.Frontends {
		entry, err := single(sets, t.Plan.Frontends[i].SetSpec, t.To)
		if err != nil {
			return err
		}
		k.Frontend = append(k.Frontend, entry)
	}
	return nil
}

// expiring looks for a member of a set with a timeout.
func expiring(sets *ipset.Sets, set netfilter.SetSpec, m netfilter.Member) (why.Entry, error) {
	entry := why.Entry{Set: set.Name, Member: m.Addr().String()}
	left, err := sets.Expiries(set.Name)
	if errors.Is(err, ipset.ErrNotFound) {
		entry.Missing = true
		return entry, nil
	}
	entry.Left, entry.There = left[m]
	return entry, err
}

// single looks for a member of a set that may be large.
func single(sets *ipset.Sets, set netfilter.SetSpec, m netfilter.Member) (why.Entry, error) {
	entry := why.Entry{Set: set.Name, Member: m.String()}
	there, err := sets.Has(set, m)
	if errors.Is(err, ipset.ErrNotFound) {
		entry.Missing = true
		return entry, nil
	}
	entry.There = there
	return entry, err
}

// readRules lists each chain that the connection passes.
func (t *Target) readRules(ctx context.Context, k *why.Kernel) error {
	tables, err := iptables.Open(t.Backend, t.Plan.Family)
	if err != nil {
		return err
	}
	if t.InPod {
		tables = tables.Untrusted()
	}
	for _, step := range t.Trace.Steps {
		known := func(c why.Chain) bool { return c.Table == step.Table && c.Name == step.Chain }
		if slices.ContainsFunc(k.Chains, known) {
			continue
		}
		chain := why.Chain{Table: step.Table, Name: step.Chain}
		rules, err := tables.Counters(ctx, step.Table, step.Chain)
		switch {
		case errors.Is(err, iptables.ErrNotFound):
			chain.Missing = true
		case err != nil:
			return err
		}
		for _, r := range rules {
			chain.Rules = append(chain.Rules, why.CountedRule{Line: r.Rule, Packets: r.Packets})
		}
		k.Chains = append(k.Chains, chain)
	}
	return nil
}

// Redirected reads which addresses the network namespace that the thread is in
// redirects, whoever made it do so, for how long, and to which of its sets a
// destination belongs, if that is valid.
func Redirected(to netip.AddrPort) (sources, destination []why.Entry, err error) {
	sets, err := ipset.Open()
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, sets.Close()) }()
	bounded := sets.Untrusted()
	for _, f := range family.All() {
		left, err := bounded.Expiries(plan.PodsSet(f))
		if err != nil && !errors.Is(err, ipset.ErrNotFound) {
			return nil, nil, err
		}
		for m, stays := range left {
			sources = append(sources, why.Entry{Set: plan.PodsSet(f), Member: m.Addr().String(), There: true, Left: stays})
		}
		if !to.IsValid() || family.Of(to.Addr()) != f || len(left) == 0 {
			continue
		}
		for _, set := range plan.FrontendSets(f) {
			entry, err := single(bounded, set, to)
			if err != nil {
				return nil, nil, err
			}
			destination = append(destination, entry)
		}
	}
	slices.SortFunc(sources, func(a, b why.Entry) int { return netip.MustParseAddr(a.Member).Compare(netip.MustParseAddr(b.Member)) })
	return sources, destination, nil
}
