// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// TestPodWithTooMuch: a pod in which there is too much to look at, of rules or of sets,
// is redirected no more; it is named, and no fault of the node's.
func TestPodWithTooMuch(t *testing.T) {
	for _, call := range []string{"list nft OUTPUT", "list legacy OUTPUT", "members nodevoy-pods4", "members nodevoy-http4"} {
		t.Run(call, func(t *testing.T) {
			f, n, namespaces := three(t)
			p := f.applied(n)
			p.Forget()
			tooMuch := func(s *fakeNamespace) {
				s.before = func(_ context.Context, is string) error {
					if is == call {
						return dump.ErrTooMuch
					}
					return nil
				}
			}
			tooMuch(namespaces[1])
			if err := p.Apply(t.Context(), f.plan(n)); !errors.Is(err, ErrPartial) || !strings.Contains(err.Error(), "a/10.1.0.3: ") {
				t.Errorf("Apply: %v, want ErrPartial that names the pod", err)
			}
			namespaces[1].Holds("nodevoy-pods4")
			namespaces[0].Holds("nodevoy-pods4", "10.1.0.2")
			namespaces[2].Holds("nodevoy-pods4", "10.1.0.4")
			if s := p.Report()["a/10.1.0.3"]; s.Redirecting || !strings.Contains(s.Reason, dump.ErrTooMuch.Error()) {
				t.Errorf("report %+v", s)
			}
			// All pods together are no more the node's fault than one.
			for _, s := range namespaces {
				tooMuch(s)
			}
			f.pass()
			p.Forget()
			if err := p.Apply(t.Context(), f.plan(n)); !errors.Is(err, ErrPartial) || !p.Engaged() {
				t.Errorf("Apply: %v, engaged %v", err, p.Engaged())
			}
		})
	}
}

// TestDriftGivesUp: a redirected pod that makes too much to look at is redirected no
// more from the next check on, which doesn't look at it again.
func TestDriftGivesUp(t *testing.T) {
	f, n, namespaces := three(t)
	p := f.applied(n)
	looks := 0
	namespaces[1].before = func(_ context.Context, call string) error {
		if looks++; strings.HasPrefix(call, "list") {
			return dump.ErrTooMuch
		}
		return nil
	}
	f.must(namespaces[1].Tables[0].Restore(t.Context(), "*nat\n:OWN - [0:0]\nCOMMIT\n"))
	if _, err := p.Drift(t.Context(), f.plan(n)); !errors.Is(err, dump.ErrTooMuch) || !strings.Contains(err.Error(), "a/10.1.0.3: ") {
		t.Errorf("Drift: %v, want an error that names the pod", err)
	}
	namespaces[1].Holds("nodevoy-pods4")
	namespaces[0].Holds("nodevoy-pods4", "10.1.0.2")
	if s := p.Report()["a/10.1.0.3"]; s.Redirecting || !strings.Contains(s.Reason, dump.ErrTooMuch.Error()) || p.Pending() {
		t.Errorf("report %+v, pending %v", s, p.Pending())
	}
	before := looks
	if _, err := p.Drift(t.Context(), f.plan(n)); err != nil || looks != before {
		t.Errorf("Drift: %v, and it looked %d times", err, looks-before)
	}
	if f.pass(); !p.Pending() {
		t.Error("not pending after the pause")
	}
}

// TestPodThatCantBeRefreshed: it is redirected no more, at once, and the others are.
func TestPodThatCantBeRefreshed(t *testing.T) {
	f, n, namespaces := three(t)
	p := f.applied(n)
	namespaces[1].before = func(_ context.Context, call string) error {
		if call == "add nodevoy-pods4" {
			return redirecttest.ErrRefused
		}
		return nil
	}
	if err := p.Refresh(t.Context()); !errors.Is(err, redirecttest.ErrRefused) || !strings.Contains(err.Error(), "a/10.1.0.3: ") {
		t.Errorf("Refresh: %v, want an error that names the pod", err)
	}
	namespaces[0].Holds("nodevoy-pods4", "10.1.0.2")
	namespaces[1].Holds("nodevoy-pods4")
	if p.Report()["a/10.1.0.3"].Redirecting || !p.Pending() {
		t.Errorf("report %+v, pending %v", p.Report()["a/10.1.0.3"], p.Pending())
	}
	f.change(func() { namespaces[1].before = nil })
	f.must(p.Apply(t.Context(), f.plan(n)))
	namespaces[1].Holds("nodevoy-pods4", "10.1.0.3")
}

// TestGonePodIsHeld: Envoy's listeners in a pod that is gone stay as long as it may be
// redirected to them: until that is stopped, or the namespace is gone too.
func TestGonePodIsHeld(t *testing.T) {
	for what, then := range map[string]func(*fixture, *fakeNamespace){
		"disengaged":     func(_ *fixture, s *fakeNamespace) { s.before = nil },
		"namespace gone": func(_ *fixture, s *fakeNamespace) { s.gone = true },
	} {
		t.Run(what, func(t *testing.T) {
			f, n, namespaces := three(t)
			p, logs := f.observed()
			f.apply(p, n)
			namespaces[1].before = func(_ context.Context, call string) error {
				if strings.HasPrefix(call, "flush") {
					return redirecttest.ErrRefused
				}
				return nil
			}
			gone := f.plan(withoutPods(n, false, 1))
			for range 3 {
				f.must(p.Prepare(t.Context(), gone))
				if err := p.Withdraw(t.Context(), gone); !errors.Is(err, redirecttest.ErrRefused) {
					t.Errorf("Withdraw: %v, want that it failed", err)
				}
				f.must(p.Apply(t.Context(), gone))
				if len(p.Targets()) != 3 || len(f.released) > 0 || namespaces[1].open != 1 || p.Pending() {
					t.Errorf("targets %v, released %v, %d sockets, pending %v", p.Targets(), f.released, namespaces[1].open, p.Pending())
				}
			}
			namespaces[0].Holds("nodevoy-pods4", "10.1.0.2")
			if logs.Len() != 1 {
				t.Errorf("logged %v, want one warning", logs.All())
			}
			f.change(func() { then(f, namespaces[1]) })
			if !p.Relocate(t.Context(), gone) || len(p.Targets()) != 2 || !slices.Equal(f.released, []string{"a/10.1.0.3"}) || namespaces[1].open != 0 {
				t.Errorf("targets %v, released %v, %d sockets", p.Targets(), f.released, namespaces[1].open)
			}
			if what == "disengaged" {
				namespaces[1].Holds("nodevoy-pods4")
			}
		})
	}
}
