// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// TestPodsOfAnEarlierAgent: the next agent keeps Envoy in a pod that was opted out and
// has redirected connections, as it is, and then releases it as the one before would have.
func TestPodsOfAnEarlierAgent(t *testing.T) {
	f, n, namespaces := three(t)
	clean := namespaces[2].Dump()
	before := f.pods()
	f.apply(before, n)
	out := withoutPods(n, true, 1, 2)
	f.apply(before, out)
	f.change(func() { namespaces[2].redirected = 1 })

	p := f.pods()
	f.must(p.Prepare(t.Context(), f.plan(out)))
	all := before.Targets()
	if d := cmp.Diff(all[:1:1], p.Targets()[:1]); d != "" {
		t.Errorf("the enrolled pod (-want +got):\n%s", d)
	}
	if d := cmp.Diff(all[2:], p.Targets()[1:]); d != "" {
		t.Errorf("pods that are not enrolled (-want +got):\n%s", d)
	}
	f.must(errors.Join(p.Withdraw(t.Context(), f.plan(out)), p.Apply(t.Context(), f.plan(out))))
	if release(p) || p.Relocate(t.Context(), f.plan(out)) || len(p.Targets()) != 2 || p.Pending() {
		t.Errorf("targets %v, pending %v", p.Targets(), p.Pending())
	}
	f.change(func() { namespaces[2].redirected = 0 })
	if !release(p) || len(p.Targets()) != 1 {
		t.Errorf("targets %v", p.Targets())
	}
	f.must(p.Apply(t.Context(), f.plan(out)))
	if d := cmp.Diff(clean, namespaces[2].Dump()); d != "" {
		t.Errorf("left in the pod (-before +after):\n%s", d)
	}
	if f.opened != 0 {
		t.Errorf("%d namespaces are open", f.opened)
	}
	// Only the first search is for such pods.
	f.change(func() { namespaces[1].redirected = 1 })
	if p.Relocate(t.Context(), f.plan(out)) {
		t.Errorf("targets %v", p.Targets())
	}
}

// TestPodsOfAnEarlierAgentThatCantBeTold: what can't be looked at, or taken over, is
// warned of and holds up nobody.
func TestPodsOfAnEarlierAgentThatCantBeTold(t *testing.T) {
	for what, spoil := range map[string]func(f *fixture, s *fakeNamespace, p *Pods){
		"not counted": func(f *fixture, s *fakeNamespace, _ *Pods) {
			f.change(func() { s.redirected, s.uncounted = 0, redirecttest.ErrRefused })
		},
		"not opened": func(_ *fixture, s *fakeNamespace, p *Pods) {
			open := p.open
			p.open = func(ns namespace) (k apply.Kernel, err error) {
				if ns == namespace(s) {
					return k, redirecttest.ErrRefused
				}
				return open(ns)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			f, n, namespaces := three(t)
			f.change(func() { namespaces[1].redirected = 1 })
			p, logs := f.observed()
			spoil(f, namespaces[1], p)
			f.apply(p, withoutPods(n, true, 1))
			if len(p.Targets()) != 2 || logs.FilterMessageSnippet("that are not enrolled").Len() != 1 {
				t.Errorf("targets %v, logged %v", p.Targets(), logs.All())
			}
			if released := slices.Contains(f.released, "a/10.1.0.3"); released != (what == "not opened") {
				t.Errorf("released %v", f.released)
			}
			namespaces[0].Holds("nodevoy-pods4", "10.1.0.2")
		})
	}
}
