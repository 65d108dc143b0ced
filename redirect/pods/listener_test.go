// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"errors"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/plan"
)

// TestPodsWithoutListeners: where Envoy can't listen it is not Envoy that fails,
// even if that is so in all pods: none is redirected, and the node is well.
func TestPodsWithoutListeners(t *testing.T) {
	f, n, namespaces := three(t)
	blocked := map[string]string{}
	for i := range n.Pods {
		blocked[n.Pods[i].Namespace+"/"+n.Pods[i].Name] = "port in use"
	}
	blocking := func() *plan.Plan { return f.plan(n).Blocking(blocked) }
	p := f.pods()
	f.must(errors.Join(p.Prepare(t.Context(), blocking()), p.Withdraw(t.Context(), blocking())))
	if err := p.Apply(t.Context(), blocking()); !errors.Is(err, ErrPartial) || errors.Is(err, ErrUnanswered) {
		t.Errorf("error %v, want ErrPartial and not ErrUnanswered", err)
	}
	f.asks = nil
	if err := p.Ask(t.Context()); err != nil || !p.Engaged() || len(f.asks) > 0 {
		t.Errorf("Ask: %v, engaged %v, asked %v", err, p.Engaged(), f.asks)
	}
	for uid, s := range p.Report() {
		if want := "no listener of Envoy's in the pod: port in use"; s.Redirecting || s.Reason != want {
			t.Errorf("report of %s: %+v, want %q", uid, s, want)
		}
	}
	// A change of the pod's own: there is no pause to wait for.
	clear(blocked)
	f.must(p.Withdraw(t.Context(), blocking()))
	if !p.Pending() {
		t.Error("not pending")
	}
	f.must(p.Apply(t.Context(), blocking()))
	namespaces[0].Holds("nodevoy-pods4", "10.1.0.2")
}

// TestBlockedPodStaysEngaged: Envoy keeps the listener that it has when it refuses
// another version of it.
func TestBlockedPodStaysEngaged(t *testing.T) {
	f, n, namespaces := three(t)
	p := f.applied(n)
	blocked := f.plan(n).Blocking(map[string]string{"a/10.1.0.2": "refused"})
	f.must(errors.Join(p.Withdraw(t.Context(), blocked), p.Apply(t.Context(), blocked)))
	namespaces[0].Holds("nodevoy-pods4", "10.1.0.2")
	f.must(p.Disengage())
	if err := p.Apply(t.Context(), blocked); !errors.Is(err, ErrPartial) || !errors.Is(err, ErrNoListener) {
		t.Errorf("error %v, want ErrPartial and ErrNoListener", err)
	}
	namespaces[0].Holds("nodevoy-pods4")
	namespaces[1].Holds("nodevoy-pods4", "10.1.0.3")
}
