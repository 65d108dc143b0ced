// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// Prepare finds the network namespaces of the plan's pods, and lets go of those
// of pods that are gone. It writes nothing. A pod that isn't found is no error
// here: see Report.
func (p *Pods) Prepare(_ context.Context, plan *Plan) error {
	p.long.Lock()
	defer p.long.Unlock()
	p.locate(plan)
	return nil
}

// Relocate looks again for pods that Prepare didn't find, and for addresses that
// have come up since. It says whether Places has changed.
func (p *Pods) Relocate(_ context.Context, plan *Plan) (changed bool) {
	p.long.Lock()
	defer p.long.Unlock()
	before := p.Places()
	p.locate(plan)
	return !slices.Equal(before, p.Places())
}

// locate makes the list of places that of the plan.
func (p *Pods) locate(plan *Plan) {
	want := map[string]PlacePlan{}
	for _, pp := range plan.Places {
		want[pp.UID] = pp
	}
	held := p.all()
	for _, pl := range held {
		_, enrolled := want[pl.UID]
		if _, living := slices.BinarySearch(plan.Living, pl.UID); living && !enrolled {
			want[pl.UID] = PlacePlan{Namespace: pl.Namespace, Pod: pl.Pod, UID: pl.UID, IPs: pl.ips}
		}
	}
	var list []netns.Wanted
	for uid, pp := range want {
		list = append(list, netns.Wanted{UID: uid, Name: pp.Name(), IPs: pp.IPs})
	}
	slices.SortFunc(list, func(x, y netns.Wanted) int { return cmp.Compare(x.UID, y.UID) })
	found, missing := p.finder.Find(list)
	// Who has lost his namespace, or has another, is closed before anything is
	// opened: a namespace may be another's now.
	gone := p.take(func(pl *place) bool { return found[pl.UID] == nil || found[pl.UID] != pl.ns })
	for _, pl := range gone {
		p.letGo(pl, want)
	}
	for uid, ns := range found {
		pp := want[uid]
		if err := p.settle(&pp, ns); err != nil {
			missing[uid] = err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// That one is gone which wasn't enrolled any more is nobody's trouble.
	p.missing = map[string]error{}
	for _, pp := range plan.Places {
		if err := missing[pp.UID]; err != nil {
			p.missing[pp.UID] = err
		}
	}
}

// letGo closes a place. Its listeners go too, so nothing is to be redirected to
// them, should the namespace live: as another pod's, for one.
func (p *Pods) letGo(pl *place, want map[string]PlacePlan) {
	if err := errors.Join(pl.applier.sources.release(), pl.applier.Close()); err != nil {
		p.log.Debug("pod not released, or its socket not closed", zap.String("pod", pl.Namespace+"/"+pl.Pod), zap.Error(err))
	}
	if _, wanted := want[pl.UID]; !wanted {
		p.finder.Release(pl.UID)
	}
	p.log.Info("pod's network namespace let go", zap.String("pod", pl.Namespace+"/"+pl.Pod), zap.String("netns", pl.Netns))
}

// settle makes a found namespace a place, or updates the one that is there.
func (p *Pods) settle(pp *PlacePlan, ns namespace) error {
	held, err := ns.Addresses()
	if err != nil {
		return fmt.Errorf("%s: %w", pp.Name(), err)
	}
	p.mu.Lock()
	pl := p.places[pp.UID]
	p.mu.Unlock()
	isNew := pl == nil
	if isNew {
		k, err := p.open(ns)
		if err != nil {
			return fmt.Errorf("%s: %w", pp.Name(), err)
		}
		a := newApplier(p.cfg, k, p.shared, p.log.With(zap.String("pod", pp.Name())))
		a.inside = true
		pl = &place{ns: ns, applier: a, PodTarget: model.PodTarget{Namespace: pp.Namespace, Pod: pp.Pod, UID: pp.UID, Netns: ns.Path()}}
		p.log.Info("pod's network namespace found", zap.String("pod", pp.Name()), zap.String("netns", ns.Path()))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.places[pp.UID] = pl
	if len(pp.Families) == 0 && !isNew {
		// It only lives on: its listeners stay as they are.
		return nil
	}
	pl.enrolled, pl.held = true, held
	now := pp.only(held)
	pl.ips, pl.lacking = now.IPs, nil
	if len(now.IPs) < len(pp.IPs) {
		lacking := slices.DeleteFunc(slices.Clone(pp.IPs), func(ip netip.Addr) bool { return slices.Contains(held, ip) })
		pl.lacking = fmt.Errorf("of the pod's addresses %v these are on no link yet: %v", pp.IPs, lacking)
	}
	_, pl.V4 = now.family(family.V4)
	_, pl.V6 = now.family(family.V6)
	return nil
}
