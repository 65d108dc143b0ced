// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"sync"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// Drift compares the plan, which Apply has put in place, with what the kernel
// holds of it in the pods that are redirected, and returns every difference; the
// next Apply mends them, or, of pods that made rules of their own, stops
// redirecting. The members of large sets are listed in one pod each time, in turn,
// and counted in the others.
func (p *Pods) Drift(ctx context.Context, desired *plan.Plan) ([]apply.Drift, error) {
	p.long.Lock()
	defer p.long.Unlock()
	places := p.list()
	if len(places) == 0 {
		return nil, nil
	}
	p.checks++
	full := places[p.checks%len(places)]
	plans := p.podPlans(desired)
	found := map[*podNetns][]apply.Drift{}
	var mu sync.Mutex
	err := p.each(ctx, places, func(ctx context.Context, pl *podNetns) error {
		wanted := plans[pl.UID]
		if wanted == nil || !pl.applier.Engaged() {
			return nil
		}
		drifts, err := pl.applier.DriftWith(ctx, wanted, pl == full)
		mu.Lock()
		defer mu.Unlock()
		found[pl] = drifts
		return withPodName(pl, err)
	})
	var all []apply.Drift
	for _, pl := range places {
		for _, d := range found[pl] {
			d.Name = pl.Namespace + "/" + pl.Pod + ": " + d.Name
			all = append(all, d)
		}
	}
	return all, err
}
