// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
)

// start is when tests begin.
func start() time.Time { return time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC) }

// use is a frontend in use of so much memory, in the order of numbers.
func use(namespace, service string, number int, memory int64) Use {
	return Use{
		Frontend: at(number), Port: model.ServicePort{Namespace: namespace, Service: service, Port: 80},
		Memory: memory, Number: uint64(number),
	}
}

func at(number int) netip.AddrPort {
	return netip.MustParseAddrPort(fmt.Sprintf("10.96.%d.%d:80", number/250, number%250+1))
}

// many are n frontends in use of a Service, of one unit of memory each.
func many(namespace, service string, from, n int) []Use {
	var out []Use
	for i := range n {
		out = append(out, use(namespace, service, from+i, 1))
	}
	return out
}

// sampleOf is a sample in which connections of these go on.
func sampleOf(began time.Time, live ...Use) Sample {
	s := Sample{Began: began, Seen: map[netip.AddrPort]bool{}, Live: map[netip.AddrPort]bool{}}
	for _, u := range live {
		s.Seen[u.Frontend], s.Live[u.Frontend] = true, true
	}
	return s
}

// given completes an input: all frontends exist, and Services may have many.
func given(in Input) Input {
	if in.Most == 0 {
		in.Most = 1000
	}
	if in.Exists == nil {
		in.Exists = func(netip.AddrPort, model.ServicePort) bool { return true }
	}
	return in
}

// leftOf counts what is left by Service.
func leftOf(l *Ledger) map[string]int {
	n := map[string]int{}
	for _, left := range l.Left {
		n[left.Port.Namespace+"/"+left.Port.Service]++
	}
	return n
}

func TestReview(t *testing.T) {
	scan, web, db := many("scan", "wide", 0, 60), many("shop", "web", 100, 10), many("shop", "db", 200, 10)
	for name, c := range map[string]struct {
		uses   []Use
		sample Sample
		limit  int64
		left   map[string]int
		closed []string
	}{
		"room enough": {
			uses: slices.Concat(scan, web), sample: sampleOf(start()), limit: 100,
		},
		"no limit": {
			uses: slices.Concat(scan, web, db), sample: sampleOf(start()), limit: 0,
		},
		"who has most gives": {
			uses: slices.Concat(scan, web, db), sample: sampleOf(start()), limit: 100,
			left: map[string]int{"scan/wide": 30}, closed: []string{"scan/*", "scan/wide"},
		},
		"who has most gives until others have as much": {
			uses: slices.Concat(scan, web, db), sample: sampleOf(start()), limit: 50,
			// 80 in all, down to 25: the namespaces to 12 and 13, and in shop the Services to 6 and 7.
			left:   map[string]int{"scan/wide": 48, "shop/db": 4, "shop/web": 3},
			closed: []string{"*", "scan/*", "scan/wide", "shop/*"},
		},
		"used frontends stay": {
			uses: slices.Concat(scan, web, db), sample: sampleOf(start(), scan[:50]...), limit: 100,
			// Ten of scan's can go, then the others' have to.
			left: map[string]int{"scan/wide": 10, "shop/db": 10, "shop/web": 10}, closed: []string{"scan/*", "scan/wide"},
		},
		"nobody knows what is used": {
			uses: slices.Concat(scan, web, db), limit: 100, closed: []string{"scan/*", "scan/wide"},
		},
		"one tenant, many Services": {
			uses: slices.Concat(many("scan", "a", 0, 30), many("scan", "b", 300, 29), web, db), sample: sampleOf(start()), limit: 100,
			left: map[string]int{"scan/a": 15, "scan/b": 14}, closed: []string{"scan/*", "scan/a", "scan/b"},
		},
		"nearly full": {
			uses: slices.Concat(scan, web, db, many("more", "x", 300, 10)), sample: sampleOf(start()), limit: 100,
			left: map[string]int{"scan/wide": 40}, closed: []string{"*", "scan/*", "scan/wide"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, changed := (&Ledger{}).Review(given(Input{Now: start(), Limit: c.limit, Uses: c.uses, Sample: c.sample}))
			if c.left == nil {
				c.left = map[string]int{}
			}
			if diff := cmp.Diff(c.left, leftOf(l)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.closed, l.Closed()); diff != "" {
				t.Errorf("closed (-want +got):\n%s", diff)
			}
			if changed != !l.None() {
				t.Errorf("changed: %v", changed)
			}
			if _, again := l.Review(given(Input{Now: start(), Limit: c.limit, Uses: c.uses, Sample: c.sample})); again {
				t.Error("the same once more changes something")
			}
		})
	}
}

// TestLeastRecentlyUsedGoesFirst, and of what was used as recently, what came last.
func TestLeastRecentlyUsedGoesFirst(t *testing.T) {
	uses := many("shop", "web", 0, 8)
	l, _ := (&Ledger{}).Review(given(Input{Now: start(), Limit: 100, Uses: uses, Sample: sampleOf(start(), uses[:4]...)}))
	l, _ = l.Review(given(Input{Now: start(), Limit: 100, Uses: uses, Sample: sampleOf(start().Add(time.Second), uses[0], uses[6])}))
	l, _ = l.Review(given(Input{Now: start(), Limit: 8, Uses: uses, Sample: sampleOf(start().Add(2 * time.Second))}))
	want := []netip.AddrPort{at(4), at(5), at(7), at(3)}
	slices.SortFunc(want, netip.AddrPort.Compare)
	got := slices.SortedFunc(maps.Keys(l.Left), netip.AddrPort.Compare)
	if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(got)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// TestGone: Envoy keeps what is left until the kernel has let go of it, and a later
// look finds no connection.
func TestGone(t *testing.T) {
	uses := many("scan", "wide", 0, 10)
	second := func(n int) time.Time { return start().Add(time.Duration(n) * time.Second) }
	input := Input{Now: second(0), Limit: 10, Uses: uses, Sample: sampleOf(second(0))}
	l, _ := (&Ledger{}).Review(given(input))
	if len(l.Left) != 5 {
		t.Fatalf("%d are left, want 5", len(l.Left))
	}
	busy := Use{}
	for _, u := range uses {
		if _, is := l.Left[u.Frontend]; is {
			busy = u
		}
	}
	gone := func() (n int) {
		for address := range l.Left {
			if l.Gone(address) {
				n++
			}
		}
		return n
	}
	for _, step := range []struct {
		what      string
		sample    Sample
		withdrawn time.Time
		gone      int
	}{
		{"not withdrawn", sampleOf(second(1)), time.Time{}, 0},
		{"withdrawn before it was left", sampleOf(second(1)), second(-1), 0},
		{"withdrawn, nobody looked since", sampleOf(second(1)), second(2), 0},
		{"nobody can tell", Sample{}, second(2), 0},
		{"withdrawn, one is in use", sampleOf(second(3), busy), second(2), 4},
		{"withdrawn again, the last is unused", sampleOf(second(6)), second(5), 5},
	} {
		input.Sample, input.Withdrawn = step.sample, step.withdrawn
		l, _ = l.Review(given(input))
		if n := gone(); n != step.gone {
			t.Errorf("%s: %d are gone, want %d", step.what, n, step.gone)
		}
	}
}

// TestReturn: what is left comes back when it has rested, as far as there is room.
func TestReturn(t *testing.T) {
	uses := many("scan", "wide", 0, 10)
	l, _ := (&Ledger{}).Review(given(Input{Now: start(), Limit: 10, Uses: uses, Sample: sampleOf(start())}))
	kept := slices.DeleteFunc(slices.Clone(uses), func(u Use) bool { return l.Why(&model.Frontend{Address: u.Frontend, Port: u.Port}, true) != "" })
	for _, step := range []struct {
		what   string
		after  time.Duration
		uses   []Use
		limit  int64
		left   int
		closed int
	}{
		{"at once", 0, nil, 10, 5, 2},
		{"before it has rested", rest - time.Second, nil, 10, 5, 2},
		{"no room", rest, kept, 10, 5, 0},
		{"room for some", rest, kept[:2], 10, 2, 0},
		{"room for all", rest, nil, 10, 0, 0},
	} {
		next, _ := l.Review(given(Input{Now: start().Add(step.after), Limit: step.limit, Uses: step.uses}))
		if len(next.Left) != step.left || len(next.Closed()) != step.closed {
			t.Errorf("%s: %d are left, closed are %v; want %d and %d", step.what, len(next.Left), next.Closed(), step.left, step.closed)
		}
	}
}

// TestDenied: what Envoy was denied is left, and gone, at once.
func TestDenied(t *testing.T) {
	denied := use("shop", "web", 7, 1)
	l, changed := (&Ledger{}).Review(given(Input{Now: start(), Limit: 10, Denied: []Use{denied}}))
	f := &model.Frontend{Address: denied.Frontend, Port: denied.Port}
	if !changed || !l.Gone(denied.Frontend) || !strings.Contains(l.Why(f, false), "when it was first called") {
		t.Errorf("changed %v, gone %v: %q", changed, l.Gone(denied.Frontend), l.Why(f, false))
	}
	if _, again := l.Review(given(Input{Now: start(), Limit: 10, Denied: []Use{denied}})); again {
		t.Error("the same once more changes something")
	}
}

// TestWhy: a frontend that is in use, or of others, is not affected by what is closed.
func TestWhy(t *testing.T) {
	l, _ := (&Ledger{}).Review(given(Input{Now: start(), Limit: 100, Uses: many("scan", "wide", 0, 80)}))
	for name, c := range map[string]struct {
		namespace, service string
		used               bool
		want               string
	}{
		"of the Service":           {"scan", "wide", false, "Service scan/wide takes much"},
		"of the Service, in use":   {"scan", "wide", true, ""},
		"of the namespace":         {"scan", "other", false, "namespace scan takes much"},
		"of another namespace":     {"shop", "wide", false, ""},
		"of a like-named Service":  {"scan2", "wide", false, ""},
		"of another one, also now": {"shop", "wide", true, ""},
	} {
		f := &model.Frontend{Address: at(999), Port: model.ServicePort{Namespace: c.namespace, Service: c.service}}
		if got := l.Why(f, c.used); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	l, _ = l.Review(given(Input{Now: start(), Limit: 100, Uses: many("scan", "wide", 0, 95)}))
	if got := l.Why(&model.Frontend{Address: at(999)}, false); !strings.Contains(got, "no further Service") {
		t.Errorf("nearly full: %q", got)
	}
}

// TestManyFrontends: no further frontend comes into use of a Service that has many,
// however little memory they take, until it has rested with fewer.
func TestManyFrontends(t *testing.T) {
	wide, web := many("scan", "wide", 0, 10), many("shop", "web", 100, 9)
	l := &Ledger{}
	for _, step := range []struct {
		what   string
		limit  int64
		after  time.Duration
		uses   []Use
		closed []string
	}{
		{"few", 1000, 0, slices.Concat(wide[:9], web), nil},
		{"no limit", 0, 0, slices.Concat(wide, web), nil},
		{"many", 1000, 0, slices.Concat(wide, web), []string{"scan/wide"}},
		{"still many, long after", 1000, 2 * rest, slices.Concat(wide, web), []string{"scan/wide"}},
		{"fewer, soon after", 1000, 2*rest + time.Second, web, []string{"scan/wide"}},
		{"fewer, long after", 1000, 3 * rest, web, nil},
	} {
		l, _ = l.Review(given(Input{Now: start().Add(step.after), Limit: step.limit, Most: 10, Uses: step.uses}))
		if diff := cmp.Diff(step.closed, l.Closed()); diff != "" || len(l.Left) != 0 {
			t.Errorf("%s: %d are left, closed (-want +got):\n%s", step.what, len(l.Left), diff)
		}
	}
}

// TestForgotten: what is left is forgotten with its Service, even while there is no
// room for it to come back.
func TestForgotten(t *testing.T) {
	uses := many("scan", "wide", 0, 10)
	l, _ := (&Ledger{}).Review(given(Input{Now: start(), Limit: 10, Uses: uses, Sample: sampleOf(start())}))
	if len(l.Left) != 5 || !l.Waits() {
		t.Fatalf("%d are left, waits %v", len(l.Left), l.Waits())
	}
	l, changed := l.Review(given(Input{
		Now: start(), Limit: 10, Uses: many("shop", "web", 100, 7),
		Exists: func(_ netip.AddrPort, p model.ServicePort) bool { return p.Namespace != "scan" },
	}))
	if len(l.Left) != 0 || !changed || l.Waits() {
		t.Errorf("%d are left, changed %v, waits %v", len(l.Left), changed, l.Waits())
	}
}

// BenchmarkReview is with as much in use as there can be.
func BenchmarkReview(b *testing.B) {
	var uses []Use
	for i := range 7000 {
		uses = append(uses, use(fmt.Sprintf("ns-%d", i%50), fmt.Sprintf("svc-%d", i), i, 1))
	}
	for b.Loop() {
		(&Ledger{}).Review(given(Input{Now: start(), Limit: 7000, Uses: uses, Sample: sampleOf(start())}))
	}
}
