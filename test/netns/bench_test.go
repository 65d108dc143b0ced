// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"testing"

	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// benchFrontends is how many the node of the benchmarks has.
const benchFrontends = 10000

func ok(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkFirstApply is everything, into a kernel that has nothing of it.
func BenchmarkFirstApply(b *testing.B) {
	for _, backend := range []netfilter.Backend{netfilter.NFT, netfilter.Legacy} {
		b.Run(string(backend), func(b *testing.B) {
			space.New(b)
			cfg := config(plan.DNAT, backend)
			desired := plan.Compile(thousands(benchFrontends), cfg)
			for b.Loop() {
				a := newApplier(b, cfg)
				ok(b, a.Apply(b.Context(), desired))
				b.StopTimer()
				ok(b, a.Cleanup(b.Context()))
				b.StartTimer()
			}
		})
	}
}

// BenchmarkTakeOver is the first Apply of a new agent, where all is in place.
func BenchmarkTakeOver(b *testing.B) {
	space.New(b)
	cfg := config(plan.DNAT, netfilter.NFT)
	desired := plan.Compile(thousands(benchFrontends), cfg)
	ok(b, newApplier(b, cfg).Apply(b.Context(), desired))
	for b.Loop() {
		a := newApplier(b, cfg)
		ok(b, a.Withdraw(b.Context(), desired))
		ok(b, a.Apply(b.Context(), desired))
	}
}

// BenchmarkOneChange is one frontend that goes or comes.
func BenchmarkOneChange(b *testing.B) {
	space.New(b)
	cfg := config(plan.DNAT, netfilter.NFT)
	plans := []*plan.Plan{plan.Compile(thousands(benchFrontends), cfg), plan.Compile(thousands(benchFrontends-1), cfg)}
	a := newApplier(b, cfg)
	ok(b, a.Apply(b.Context(), plans[0]))
	i := 0
	for b.Loop() {
		i++
		ok(b, a.Withdraw(b.Context(), plans[i%2]))
		ok(b, a.Apply(b.Context(), plans[i%2]))
	}
}

// BenchmarkCompile is the pure part.
func BenchmarkCompile(b *testing.B) {
	n := thousands(benchFrontends)
	for b.Loop() {
		plan.Compile(n, plan.DefaultConfig())
	}
}

// BenchmarkDrift is one check of everything in place.
func BenchmarkDrift(b *testing.B) {
	for _, m := range []plan.Mechanism{plan.DNAT, plan.TPROXY} {
		for _, backend := range []netfilter.Backend{netfilter.NFT, netfilter.Legacy} {
			b.Run(string(m)+"-"+string(backend), func(b *testing.B) {
				space.New(b)
				cfg := config(m, backend)
				desired := plan.Compile(thousands(benchFrontends), cfg)
				a := newApplier(b, cfg)
				ok(b, a.Apply(b.Context(), desired))
				for b.Loop() {
					_, err := a.Drift(b.Context(), desired)
					ok(b, err)
				}
			})
		}
	}
}

// BenchmarkRefresh renews 100 pods.
func BenchmarkRefresh(b *testing.B) {
	space.New(b)
	cfg := config(plan.DNAT, netfilter.NFT)
	a := newApplier(b, cfg)
	ok(b, a.Apply(b.Context(), plan.Compile(thousands(benchFrontends), cfg)))
	for b.Loop() {
		ok(b, a.Refresh(b.Context()))
	}
}

// BenchmarkDisengage ends redirection of 100 pods.
func BenchmarkDisengage(b *testing.B) {
	space.New(b)
	cfg := config(plan.DNAT, netfilter.NFT)
	desired := plan.Compile(thousands(benchFrontends), cfg)
	a := newApplier(b, cfg)
	for b.Loop() {
		b.StopTimer()
		ok(b, a.Apply(b.Context(), desired))
		b.StartTimer()
		ok(b, a.Disengage())
	}
}
