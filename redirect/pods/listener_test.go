// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"errors"
	"fmt"
	"testing"
)

// TestPodsWithoutListeners: where Envoy can't listen it is not Envoy that fails,
// even if that is so in all pods: none is redirected, and the node is well.
func TestPodsWithoutListeners(t *testing.T) {
	f, n, spaces := three(t)
	for _, s := range spaces {
		f.unanswered[s.Path()] = fmt.Errorf("%w: port in use", ErrNoListener)
	}
	p := f.pods()
	if err := f.round(p, n); !errors.Is(err, ErrPartial) || errors.Is(err, ErrUnanswered) {
		t.Errorf("error %v, want ErrPartial and not ErrUnanswered", err)
	}
	if err := p.Ask(t.Context()); err != nil || !p.Engaged() || !p.Pending() {
		t.Errorf("Ask: %v, engaged %v, pending %v", err, p.Engaged(), p.Pending())
	}
	for uid, s := range p.Report() {
		if want := "no listener of Envoy's in the pod: port in use"; s.Redirecting || s.Reason != want {
			t.Errorf("report of %s: %+v, want %q", uid, s, want)
		}
	}
	f.change(func() { clear(f.unanswered) })
	f.must(p.Apply(t.Context(), f.plan(n)))
	spaces[0].Holds("nodevoy-pods4", "10.1.0.2")
}
