// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// The most that Envoy may need for manyPods, each with its listeners.
const (
	manyPods       = 100
	manyPodsMemory = 60 << 10 // kB
	manyPodsTime   = 5 * time.Second
)

// TestManyPods: a hundred pods cost Envoy little memory and time, and one more,
// or one less, next to nothing.
func TestManyPods(t *testing.T) {
	var pods []*pod
	for i := range manyPods {
		pods = append(pods, newNamespace(t, fmt.Sprintf("pod-%d", i)))
	}
	node := nodeOf(t)
	r := newFixtureWith(t, node, setup{pods: []*pod{}, workers: 2})
	settled := func(pods []*pod) time.Duration {
		t.Helper()
		start := time.Now()
		r.server.Publish(node, targets(pods...))
		published := time.Since(start)
		took := eventually(t, 20*time.Second, func() error {
			if st := r.server.Status(); !st.Settled || !st.ListenersAcked || st.Refused.Any() || st.NackCount != 0 {
				return fmt.Errorf("not settled: %+v", st)
			}
			if len(pods) == 0 {
				return nil
			}
			return pods[len(pods)-1].probe()
		})
		t.Logf("%d pods: published in %v, served after %v, Envoy has %d kB", len(pods), published, took, r.rss())
		return took
	}
	before, files := r.rss(), r.files()
	if took := settled(pods); took > manyPodsTime {
		t.Errorf("%d pods are served after %v, want %v at most", manyPods, took, manyPodsTime)
	}
	for _, p := range pods {
		p.ok(p.probe())
	}
	if more := r.rss() - before; more > manyPodsMemory {
		t.Errorf("%d pods take %d kB of Envoy's memory, want %d at most", manyPods, more, manyPodsMemory)
	} else {
		t.Logf("%d pods take %d kB", manyPods, more)
	}
	settled(pods[:manyPods-1])
	settled(pods)
	settled(pods)
	// What is removed is given back, but for what drains for a while yet.
	full := r.rss()
	for range 5 {
		settled(nil)
		eventually(t, 5*time.Second, func() error {
			if n := r.files(); n > files+1 { // The log, once it was needed.
				return fmt.Errorf("without a pod, Envoy has %d files open; before the first it had %d", n, files)
			}
			return nil
		})
		settled(pods)
	}
	t.Logf("coming and going five times takes %d kB more", r.rss()-full)
}

// files counts those that Envoy has open, sockets included.
func (r *fixture) files() int {
	r.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.envoy.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(entries)
}
