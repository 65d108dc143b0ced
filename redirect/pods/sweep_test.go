// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// observed is a fresh Pods, and what it logs from warnings on.
func (f *fixture) observed() (*Pods, *observer.ObservedLogs) {
	core, logs := observer.New(zap.WarnLevel)
	p := f.pods()
	p.log = zap.New(core)
	return p, logs
}

// hugeTable makes the legacy nat table of a namespace too large to be looked at.
func hugeTable(s *fakeNamespace) {
	s.before = func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "list legacy") {
			return dump.ErrTooMuch
		}
		return nil
	}
}

// TestSweepIsTriedAgain: in a quiet cluster too, ever more rarely, with one warning;
// a sweep that failed in one namespace doesn't look into the others again.
func TestSweepIsTriedAgain(t *testing.T) {
	f, n, namespaces := three(t)
	f.applied(n)
	m := withoutPods(n, true, 0, 1)
	p, logs := f.observed()
	tries := map[string]int{}
	denied, applies := true, 0
	for i, s := range namespaces {
		s.before = func(_ context.Context, call string) error {
			if call != "flush nodevoy-pods4" {
				return nil
			}
			tries[s.Path()]++
			if i == 0 && denied {
				return redirecttest.ErrRefused
			}
			return nil
		}
	}
	f.apply(p, m)
	tick := func(seconds int) {
		for range seconds {
			f.change(func() { f.now = f.now.Add(time.Second) })
			f.must(p.Refresh(t.Context()))
			if p.Pending() {
				applies++
				f.must(p.Apply(t.Context(), f.plan(m)))
			}
		}
	}
	tick(60)
	if got := tries[namespaces[0].Path()]; got < 6 || got > 7 {
		t.Errorf("%d tries in the first minute, want 1, 2, 4, 8, 16 and 32 s apart", got)
	}
	tick(600)
	if got := tries[namespaces[0].Path()]; got < 15 || got > 17 {
		t.Errorf("%d tries in eleven minutes, want one a minute", got)
	}
	if applies > 16 {
		t.Errorf("pending %d times in eleven minutes", applies)
	}
	if got := tries[namespaces[1].Path()]; got != 1 {
		t.Errorf("%d looks where nothing failed", got)
	}
	if logs.Len() != 1 || !strings.Contains(logs.All()[0].ContextMap()["error"].(string), namespaces[0].Path()) {
		t.Errorf("logged %v, want one warning that names the namespace", logs.All())
	}
	denied = false
	tick(60)
	before := tries[namespaces[0].Path()]
	if tick(600); p.Pending() || tries[namespaces[0].Path()] != before {
		t.Error("tried again though it has worked")
	}
}

// TestHugeTableStopsNobody: a pod whose rules are too many to look at, enrolled or not,
// neither stops what is done in the others nor is an error, unless sets of ours are
// there.
func TestHugeTableStopsNobody(t *testing.T) {
	for what, do := range map[string]func(*Pods, context.Context) error{"Cleanup": (*Pods).Cleanup, "Drain": (*Pods).Drain} {
		t.Run(what, func(t *testing.T) {
			f, n, namespaces := three(t)
			f.applied(n)
			hostile := f.add("10.1.0.99")
			hugeTable(hostile)
			p, logs := f.observed()
			f.must(do(p, t.Context()))
			if logs.Len() != 1 || !strings.Contains(logs.All()[0].ContextMap()["error"].(string), hostile.Path()) {
				t.Errorf("logged %v, want one warning that names the namespace", logs.All())
			}
			for _, s := range namespaces {
				if s.Sets.Exists("nodevoy-http4") {
					t.Errorf("%s was passed over", s.Path())
				}
			}
			f.must(hostile.Sets.Create(netfilter.SetSpec{Name: "nodevoy-pods4", Type: netfilter.HashIP, MaxElements: 1}))
			hostile.Chain(netfilter.NFT, "nat", "OWN", "-A OUTPUT -m set --match-set nodevoy-pods4 src -j OWN")
			ctx, cancel := redirecttest.ShortContext(t)
			defer cancel()
			if err := do(f.pods(), ctx); !errors.Is(err, dump.ErrTooMuch) || !strings.Contains(err.Error(), hostile.Path()) {
				t.Errorf("with a set of ours: %v, want an error that names the namespace", err)
			}
		})
	}
}

// TestHugeTableIsSweptRarely: what can't be told is named once, and tried again once a
// minute; nothing else waits for it.
func TestHugeTableIsSweptRarely(t *testing.T) {
	f, n, _ := three(t)
	hostile := f.add("10.1.0.99")
	looks := 0
	hostile.before = func(_ context.Context, call string) error {
		if call == "list legacy NODEVOY-OUTPUT" {
			looks++
		}
		if strings.HasPrefix(call, "list legacy") {
			return dump.ErrTooMuch
		}
		return nil
	}
	p, logs := f.observed()
	f.apply(p, n)
	first := looks
	for range 600 {
		f.change(func() { f.now = f.now.Add(time.Second) })
		if p.Pending() {
			f.must(p.Apply(t.Context(), f.plan(n)))
		}
	}
	if looks < 10*first || looks > 11*first {
		t.Errorf("looked %d times at first and %d in ten minutes, want one a minute", first, looks)
	}
	if logs.Len() != 1 {
		t.Errorf("logged %v, want one warning", logs.All())
	}
	f.change(func() { hostile.before, f.now = nil, f.now.Add(time.Minute) })
	f.must(p.Apply(t.Context(), f.plan(n)))
	if f.change(func() { f.now = f.now.Add(time.Hour) }); p.Pending() {
		t.Error("pending though all was looked at")
	}
}
