// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// TestBackOff: a pod that can't be redirected is tried ever more rarely, at least
// once a minute, and at once when it changes.
func TestBackOff(t *testing.T) {
	f, n, namespaces := three(t)
	tries := 0
	namespaces[1].Hook = func(*iptables.Fake, string) error { tries++; return redirecttest.ErrRefused }
	p := f.pods()
	if err := f.round(p, n); !errors.Is(err, ErrPartial) {
		t.Fatal(err)
	}
	tick := func(seconds int) (tried int) {
		before := tries
		for range seconds {
			f.change(func() { f.now = f.now.Add(time.Second) })
			f.must(p.Refresh(t.Context()))
			if p.Pending() {
				if err := p.Apply(t.Context(), f.plan(n)); !errors.Is(err, ErrPartial) || !strings.Contains(err.Error(), "a/10.1.0.3") {
					t.Fatalf("Apply: %v", err)
				}
			}
		}
		return tries - before
	}
	if got := tick(60); got < 5 || got > 6 {
		t.Errorf("%d tries in the first minute, want 1, 2, 4, 8, 16 and 32 s apart", got)
	}
	if got := tick(600); got < 9 || got > 11 {
		t.Errorf("%d tries in ten minutes, want one a minute", got)
	}
	n.Pods[1].Enrolled = false
	f.must(errors.Join(p.Prepare(t.Context(), f.plan(n)), p.Withdraw(t.Context(), f.plan(n))))
	n.Pods[1].Enrolled = true
	before := tries
	if err := f.round(p, n); !errors.Is(err, ErrPartial) || tries == before {
		t.Errorf("enrolled anew: %v, tried %d times", err, tries-before)
	}
}

// TestMissingPodIsLookedForRarely: often at first, then with the rest of the node.
func TestMissingPodIsLookedForRarely(t *testing.T) {
	f, n, namespaces := three(t)
	namespaces[1].gone = true
	p := f.pods()
	if err := f.round(p, n); !errors.Is(err, ErrPartial) {
		t.Fatal(err)
	}
	looks := 0
	for range 600 {
		f.change(func() { f.now = f.now.Add(firstSearch) })
		if p.SearchDue() {
			looks++
			p.Relocate(t.Context(), f.plan(n))
		}
	}
	if looks < 8 || looks > 10 {
		t.Errorf("%d looks in two minutes, want 0.2, 0.4, 0.8 … 60 s apart", looks)
	}
	f.change(func() { namespaces[1].gone = false })
	if !p.Relocate(t.Context(), f.plan(n)) || p.SearchDue() {
		t.Error("not found once it is there, or still looked for")
	}
}
