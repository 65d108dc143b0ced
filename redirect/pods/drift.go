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
	pods := p.list()
	if len(pods) == 0 {
		return nil, nil
	}
	p.checks++
	full := pods[p.checks%len(pods)]
	plans := p.podPlans(desired)
	found := map[*podNetns][]apply.Drift{}
	var mu sync.Mutex
	err := p.each(ctx, pods, func(ctx context.Context, pod *podNetns) error {
		wanted := plans[pod.UID]
		if wanted == nil || !pod.applier.Engaged() {
			return nil
		}
		drifts, err := pod.applier.DriftWith(ctx, wanted, pod == full)
		mu.Lock()
		defer mu.Unlock()
		found[pod] = drifts
		return withPodName(pod, err)
	})
	var all []apply.Drift
	for _, pod := range pods {
		for _, d := range found[pod] {
			d.Name = pod.Namespace + "/" + pod.Pod + ": " + d.Name
			all = append(all, d)
		}
	}
	return all, err
}
