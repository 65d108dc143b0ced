// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// manyFixture is many pods' namespaces with an address each, in which nobody talks and
// Envoy always answers.
type manyFixture struct {
	*runtimeDir
	cfg   plan.Config
	pods  *pods.Pods
	paths []string
}

// newManyFixture makes the namespaces of the first pods of thousands.
func newManyFixture(t testing.TB, b netfilter.Backend, count int) *manyFixture {
	t.Helper()
	f := &manyFixture{runtimeDir: newRuntimeDir(t), cfg: podConfig(b)}
	f.grow(0, count)
	f.restart()
	return f
}

// grow adds pods from this number on.
func (f *manyFixture) grow(from, count int) {
	f.t.Helper()
	for i := range count {
		f.paths = append(f.paths, f.add(fmt.Sprintf("cni-%d", from+i), podAddress(from+i).String()))
	}
}

// shrink deletes all pods.
func (f *manyFixture) shrink() {
	f.t.Helper()
	for _, path := range f.paths {
		f.remove(path)
	}
	f.paths = nil
}

// restart is a new agent.
func (f *manyFixture) restart() {
	f.t.Helper()
	finder := netns.New(netns.Config{Dirs: []string{f.path}}, time.Now, zap.NewNop())
	p, err := pods.New(f.cfg, finder, func(context.Context, *netns.Namespace, netip.AddrPort) error { return nil }, zap.NewNop())
	f.ok(err)
	f.pods = p
	f.t.Cleanup(func() {
		f.ok(p.Close())
		finder.Close()
	})
}

// round is what the agent does after a change.
func (f *manyFixture) round(desired *plan.Plan) {
	f.t.Helper()
	f.ok(f.pods.Prepare(f.t.Context(), desired))
	f.ok(f.pods.Withdraw(f.t.Context(), desired))
	err := f.pods.Apply(f.t.Context(), desired)
	for err != nil && f.pods.Pending() {
		// A slow machine needs more than one pass over so many.
		err = f.pods.Apply(f.t.Context(), desired)
	}
	f.ok(err)
}

func (f *manyFixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func podAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i + 2)}) }

// nodeOfMany is a node with some of thousands' pods.
func nodeOfMany(frontends, from, count int) *model.Node {
	n := thousands(frontends)
	n.Pods = nil
	for i := range count {
		name := fmt.Sprintf("pod-%d", from+i)
		n.Pods = append(n.Pods, model.Pod{Namespace: "a", Name: name, UID: name, Enrolled: true, IPs: []netip.Addr{podAddress(from + i)}})
	}
	return n
}

func (f *manyFixture) plan(frontends, count int) *plan.Plan {
	return plan.Compile(nodeOfMany(frontends, 0, count), f.cfg)
}

// redirected counts pods that are in their set, as their kernels have it.
func (f *manyFixture) redirected() (count int) {
	f.t.Helper()
	for _, path := range f.paths {
		f.do(path, func() error {
			sets, err := ipset.Open()
			if err != nil {
				return err
			}
			defer func() { _ = sets.Close() }()
			h, err := sets.Header("nodevoy-pods4")
			count += h.Count
			if errors.Is(err, ipset.ErrNotFound) {
				return nil
			}
			return err
		})
	}
	return count
}

// TestManyPodsDisengage: however many pods there are, and in the middle of an Apply,
// which then leaves none redirected.
func TestManyPodsDisengage(t *testing.T) {
	f := newManyFixture(t, netfilter.NFT, manyPods)
	var slowest time.Duration
	for round := range 3 {
		f.round(f.plan(0, manyPods))
		if got := f.redirected(); got != manyPods {
			t.Fatalf("%d pods redirected, want %d", got, manyPods)
		}
		begin := time.Now()
		f.ok(f.pods.Disengage())
		slowest = max(slowest, time.Since(begin))
		if got := f.redirected(); got != 0 {
			t.Errorf("%d pods redirected after Disengage", got)
		}
		applied := make(chan error, 1)
		big := f.plan(3000, manyPods)
		go func() { applied <- f.pods.Apply(t.Context(), big) }()
		space.Until(t, limit, "Apply to be at work", func() error {
			if got := f.redirected(); got <= round*20 {
				return fmt.Errorf("%d pods redirected", got)
			}
			return nil
		})
		begin = time.Now()
		f.ok(f.pods.Disengage())
		slowest = max(slowest, time.Since(begin))
		if err := <-applied; err != nil && !errors.Is(err, apply.ErrDisengaged) {
			t.Fatal(err)
		} else if err == nil {
			t.Logf("round %d: Apply had ended", round)
		}
		if got := f.redirected(); got != 0 {
			t.Errorf("%d pods redirected after a Disengage during Apply", got)
		}
	}
	t.Logf("slowest Disengage of %d pods: %s", manyPods, slowest)
	// A few milliseconds, but for a machine that has more to do than it can.
	if slowest > 500*time.Millisecond {
		t.Errorf("Disengage took %s", slowest)
	}
}

// TestManyPodsLeaks: what 200 pods cost in open files while they live, and that
// nothing of them is left when they are gone.
func TestManyPodsLeaks(t *testing.T) {
	f := newManyFixture(t, netfilter.NFT, 0)
	const batch, perPod = 20, 3
	f.round(f.plan(10, 0))
	before := openFiles(t)
	threads := tasks(t)
	for begin := 0; begin < 200; begin += batch {
		f.grow(begin, batch)
		n := nodeOfMany(10, begin, batch)
		f.round(plan.Compile(n, f.cfg))
		if got := openFiles(t) - before; got > batch*perPod {
			t.Fatalf("%d pods hold %d files open, want at most %d each", batch, got, perPod)
		}
		// Some are opted out before they end, as it happens.
		for i := range n.Pods {
			n.Pods[i].Enrolled = i%3 == 0
		}
		f.round(plan.Compile(n, f.cfg))
		f.shrink()
		f.round(f.plan(10, 0))
		if got := openFiles(t); got != before {
			t.Fatalf("%d files open after pods have come and gone, want %d", got, before)
		}
	}
	if got := tasks(t); got > threads+20 {
		t.Errorf("%d threads, before %d", got, threads)
	}
	if len(f.pods.Report())+len(f.pods.Targets()) > 0 {
		t.Errorf("report %v, targets %v", f.pods.Report(), f.pods.Targets())
	}
}

func tasks(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// BenchmarkPodsCold is everything, in pods that have nothing of it.
func BenchmarkPodsCold(b *testing.B) {
	for _, backend := range backends() {
		b.Run(string(backend), func(b *testing.B) {
			f := newManyFixture(b, backend, 0)
			desired := f.plan(benchFrontends, manyPods)
			for b.Loop() {
				b.StopTimer()
				f.shrink()
				f.grow(0, manyPods)
				f.restart()
				b.StartTimer()
				f.round(desired)
			}
		})
	}
}

// BenchmarkPodsTakeOver is the first round of a new agent, where all is in place.
func BenchmarkPodsTakeOver(b *testing.B) {
	f := newManyFixture(b, netfilter.NFT, manyPods)
	desired := f.plan(benchFrontends, manyPods)
	f.round(desired)
	for b.Loop() {
		b.StopTimer()
		f.restart()
		b.StartTimer()
		f.round(desired)
	}
}

// BenchmarkPodsOneChange is one frontend that goes or comes, in all pods.
func BenchmarkPodsOneChange(b *testing.B) {
	f := newManyFixture(b, netfilter.NFT, manyPods)
	f.round(f.plan(benchFrontends, manyPods))
	nodes := []*model.Node{nodeOfMany(benchFrontends-1, 0, manyPods), nodeOfMany(benchFrontends, 0, manyPods)}
	i := 0
	for b.Loop() {
		f.round(plan.Compile(nodes[i%2], f.cfg))
		i++
	}
}

// BenchmarkPodsUnchanged is a round after which all is as before.
func BenchmarkPodsUnchanged(b *testing.B) {
	f := newManyFixture(b, netfilter.NFT, manyPods)
	f.round(f.plan(benchFrontends, manyPods))
	desired := f.plan(benchFrontends, manyPods)
	for b.Loop() {
		f.round(desired)
	}
}

// BenchmarkPodsDrift is one check of all pods.
func BenchmarkPodsDrift(b *testing.B) {
	for _, backend := range backends() {
		b.Run(string(backend), func(b *testing.B) {
			f := newManyFixture(b, backend, manyPods)
			desired := f.plan(benchFrontends, manyPods)
			f.round(desired)
			for b.Loop() {
				_, err := f.pods.Drift(b.Context(), desired)
				f.ok(err)
			}
		})
	}
}

// BenchmarkPodsRefresh renews all pods.
func BenchmarkPodsRefresh(b *testing.B) {
	f := newManyFixture(b, netfilter.NFT, manyPods)
	f.round(f.plan(0, manyPods))
	for b.Loop() {
		f.ok(f.pods.Refresh(b.Context()))
	}
}

// BenchmarkPodsRelease ends redirection of all pods.
func BenchmarkPodsRelease(b *testing.B) {
	f := newManyFixture(b, netfilter.NFT, manyPods)
	desired := f.plan(0, manyPods)
	for b.Loop() {
		b.StopTimer()
		f.round(desired)
		b.StartTimer()
		f.ok(f.pods.Disengage())
	}
}
