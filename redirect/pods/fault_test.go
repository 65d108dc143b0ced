// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
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
