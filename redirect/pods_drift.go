// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"context"
	"sync"
)

// Drift compares the plan, which Apply has put in place, with what the kernel
// holds of it in the pods that are redirected, and returns every difference; the
// next Apply mends them, or, of pods that made rules of their own, stops
// redirecting. The members of large sets are listed in one pod each time, in turn,
// and counted in the others.
func (p *Pods) Drift(ctx context.Context, plan *Plan) ([]Drift, error) {
	p.long.Lock()
	defer p.long.Unlock()
	places := p.all()
	if len(places) == 0 {
		return nil, nil
	}
	p.checks++
	full := places[p.checks%len(places)]
	plans := p.planned(plan)
	found := map[*place][]Drift{}
	var mu sync.Mutex
	err := p.each(ctx, places, func(ctx context.Context, pl *place) error {
		wanted := plans[pl.UID]
		if wanted == nil || !pl.applier.Engaged() {
			return nil
		}
		drifts, err := pl.applier.driftWith(ctx, wanted, pl == full)
		mu.Lock()
		defer mu.Unlock()
		found[pl] = drifts
		return named(pl, err)
	})
	var all []Drift
	for _, pl := range places {
		for _, d := range found[pl] {
			d.Name = pl.Namespace + "/" + pl.Pod + ": " + d.Name
			all = append(all, d)
		}
	}
	return all, err
}
