// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/redirect/netns"
)

// many is how many namespaces the benchmarks have.
const many = 200

func namespaces(b *testing.B) (*runtimeDir, []netns.Wanted) {
	d := newRuntimeDir(b)
	var want []netns.Wanted
	for i := range many {
		name, ip := fmt.Sprintf("pod%d", i), fmt.Sprintf("10.1.1.%d", i+1)
		d.add(name, ip)
		want = append(want, pod(name, ip))
	}
	return d, want
}

func perNamespace(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/many, "µs/namespace")
}

// BenchmarkFinderCold finds the namespaces of all pods, as an agent does that
// starts.
func BenchmarkFinderCold(b *testing.B) {
	d, want := namespaces(b)
	for b.Loop() {
		f := d.finder("")
		if found, missing := f.Find(want); len(found) != many {
			b.Fatal(missing)
		}
		f.Close()
	}
	perNamespace(b)
}

// BenchmarkFinderHeld makes sure that what was found is still right.
func BenchmarkFinderHeld(b *testing.B) {
	d, want := namespaces(b)
	f := d.finder("")
	for b.Loop() {
		if found, missing := f.Find(want); len(found) != many {
			b.Fatal(missing)
		}
	}
	perNamespace(b)
}

// BenchmarkFinderStrange looks for a pod that isn't there in the namespaces of
// pods that aren't wanted, none of which was read lately.
func BenchmarkFinderStrange(b *testing.B) {
	d, _ := namespaces(b)
	f := d.finder("")
	for b.Loop() {
		f.now = f.now.Add(time.Minute)
		if _, missing := f.Find([]netns.Wanted{pod("none", "10.9.9.9")}); len(missing) != 1 {
			b.Fatal("a pod was found that isn't there")
		}
	}
	perNamespace(b)
}

// BenchmarkFinderOthers is the same among pods that aren't asked for, all of which
// claim the namespace of one that may administer its network.
func BenchmarkFinderOthers(b *testing.B) {
	d, pods := namespaces(b)
	var addrs []string
	for i := range pods {
		pods[i].ExcludeOnly = true
		addrs = append(addrs, "net1="+pods[i].IPs[0].String())
	}
	d.address(filepath.Join(d.path, "pod0"), addrs...)
	f := d.finder("")
	for b.Loop() {
		f.now = f.now.Add(time.Minute)
		if _, missing := f.Find(append(pods, pod("none", "10.9.9.9"))); len(missing) != 1 {
			b.Fatal("a pod was found that isn't there")
		}
	}
	perNamespace(b)
}

// BenchmarkSpaceDo enters and leaves a namespace.
func BenchmarkSpaceDo(b *testing.B) {
	d := newRuntimeDir(b)
	s, err := netns.OpenPath(d.add("a"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	for b.Loop() {
		if err := s.Do(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
