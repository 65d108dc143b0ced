// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/differential"
)

// The variables that change TestDifferential: the seed of the one case to run, and for
// how long to run random ones.
const (
	seedVar = "NODEVOY_DIFFERENTIAL_SEED"
	timeVar = "NODEVOY_DIFFERENTIAL_TIME"
)

const (
	// cases is how many TestDifferential runs in each mode.
	cases = 1000
	// lanes is how many of them run at a time.
	lanes = 32
	// patience is how long a case may wait for what is to come.
	patience = 10 * time.Second
	// maxReports is how many differences are enough.
	maxReports = 20
)

// TestDifferential: what clients and servers see of each other through Envoy is what
// they see directly, but for the changes in README.md.
func TestDifferential(t *testing.T) { bothModes(t, testDifferential) }

func testDifferential(t *testing.T, in mode) {
	d := newDifferential(t, in)
	if text := os.Getenv(seedVar); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		d.show(d.lanes[0], differential.Generate(seed))
		d.try(d.lanes[0], differential.Generate(seed))
		return
	}
	text := os.Getenv(timeVar)
	if text == "" {
		d.run(0, func(seed uint64) bool { return seed < cases })
		return
	}
	limit, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	d.run(uint64(start.UnixNano()), func(uint64) bool { return time.Since(start) < limit })
	for _, r := range differential.Rules() {
		t.Logf("%7d cases need the rule %q", d.used[r.Name], r.Name)
		if d.used[r.Name] == 0 {
			t.Errorf("no case needs the rule %q", r.Name)
		}
	}
}

// run tries the cases of the seeds from first on, as long as there are to be more.
func (d *comparison) run(first uint64, more func(seed uint64) bool) {
	start, next := time.Now(), atomic.Uint64{}
	next.Store(first)
	var tasks sync.WaitGroup
	for _, l := range d.lanes {
		tasks.Go(func() {
			for seed := next.Add(1) - 1; more(seed) && d.reports.Load() < maxReports; seed = next.Add(1) - 1 {
				d.try(l, differential.Generate(seed))
			}
		})
	}
	tasks.Wait()
	d.t.Logf("cases of the seeds from %d to %d in %v", first, next.Load()-lanes-1, time.Since(start))
}

// comparison plays cases directly and through Envoy.
type comparison struct {
	t       *testing.T
	mode    mode
	lanes   []lane
	reports atomic.Int64
	mu      sync.Mutex
	// used is how often each rule was needed, and kinds how often there was a difference.
	used, kinds map[string]int
}

// lane is a server, and its frontends of each class.
type lane struct {
	server    *rawServer
	frontends map[differential.Class]string
}

func newDifferential(t *testing.T, in mode) *comparison {
	t.Helper()
	d := &comparison{t: t, mode: in, used: map[string]int{}, kinds: map[string]int{}}
	var services []service
	for i := range lanes {
		server := newRawServer(t, fmt.Sprintf("10.244.0.%d:8080", i+1))
		l := lane{server: server, frontends: map[differential.Class]string{}}
		for n, class := range []differential.Class{differential.HTTP, differential.TCP, differential.Detect} {
			l.frontends[class] = fmt.Sprintf("10.96.%d.%d:80", n+1, i+10)
			services = append(services, service{fmt.Sprintf("%s-%d", class, i), l.frontends[class], []string{server.address()}})
		}
		d.lanes = append(d.lanes, l)
	}
	in.fixture(t, nodeOf(t, services...))
	// The first request is another matter: see TestFirst.
	for _, l := range d.lanes {
		for _, class := range []differential.Class{differential.HTTP, differential.Detect} {
			d.warm(l, class, "/")
			d.warm(l, class, "http://web/")
		}
	}
	return d
}

// warm makes a request, so that Envoy has the cluster.
func (d *comparison) warm(l lane, class differential.Class, target string) {
	d.t.Helper()
	c := differential.Case{
		Class:  class,
		Client: []differential.Step{{Op: differential.Send, Data: "GET " + target + " HTTP/1.1\r\nHost: web\r\n\r\n"}, {Op: differential.AwaitDone, N: 1}},
		Replies: []differential.Reply{{When: differential.AfterRequest, Steps: []differential.Step{
			{Op: differential.Send, Data: "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 0\r\n\r\n"},
		}}},
	}
	if found, _, err := d.play(l, c, patience); err != nil || len(found) > 0 {
		d.t.Fatalf("%v: %v, %v", c, found, err)
	}
}

// try runs a case, and reports it as small as it can be if it differs.
func (d *comparison) try(l lane, c differential.Case) {
	found, used, err := d.play(l, c, patience)
	if err != nil {
		d.reports.Add(1)
		d.t.Errorf("seed %d: %v", c.Seed, err)
		return
	}
	if len(found) > 0 && !d.repeats(l, c) {
		d.t.Logf("seed %d differs once, and not again, as on a busy machine: %v", c.Seed, found)
		found = nil
	}
	d.mu.Lock()
	for _, name := range used {
		d.used[name]++
	}
	again := 0
	if len(found) > 0 {
		d.kinds[found[0].Kind]++
		again = d.kinds[found[0].Kind]
	}
	d.mu.Unlock()
	switch {
	case again == 0:
		return
	case again > 3:
		d.t.Errorf("seed %d differs, too, in %s", c.Seed, found[0].Kind)
		return
	}
	d.reports.Add(1)
	const tries, short = 150, 300 * time.Millisecond
	small := differential.Minimise(c, tries, func(c differential.Case) bool {
		differs, _, err := d.play(l, c, short)
		return err == nil && len(differs) > 0 && differs[0].Kind == found[0].Kind
	})
	differs, _, err := d.play(l, small, short)
	d.t.Errorf("seed %d differs in %v\n\nthe smallest case that is like it: %v\nIt differs in %v, %v\n\n%s=%d runs it again.", c.Seed, found, small, differs, err, seedVar, c.Seed)
}

// repeats says whether a case that has differed does in any of a few more runs.
func (d *comparison) repeats(l lane, c differential.Case) bool {
	for range 4 {
		if found, _, err := d.play(l, c, patience); err != nil || len(found) > 0 {
			return true
		}
	}
	return false
}

// show logs a case and what both sides see.
func (d *comparison) show(l lane, c differential.Case) {
	d.t.Helper()
	direct, err := differential.Direct(d.t.Context(), c, d.mode.path(l.server, l.server.address(), patience))
	d.t.Logf("%v\ndirectly (%v):\n%v", c, err, direct)
	through, err := differential.Run(d.t.Context(), c, d.mode.path(l.server, l.frontends[c.Class], time.Second), func(differential.Transcript) bool { return false })
	d.t.Logf("through Envoy (%v):\n%v", err, through)
}

// play runs a case both ways, and compares.
func (d *comparison) play(l lane, c differential.Case, wait time.Duration) (found []differential.Difference, used []string, err error) {
	direct, err := differential.Direct(d.t.Context(), c, d.mode.path(l.server, l.server.address(), wait))
	if err != nil {
		return nil, nil, err
	}
	rules := differential.Rules()
	same := func(through differential.Transcript) bool {
		found, used = differential.Compare(c, rules, direct, through)
		return len(found) == 0
	}
	through, err := differential.Run(d.t.Context(), c, d.mode.path(l.server, l.frontends[c.Class], wait), same)
	if err != nil {
		return nil, nil, err
	}
	same(through)
	return found, used, nil
}
