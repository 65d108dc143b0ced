// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// release counts and releases.
func release(p *Pods) bool {
	p.CountLeaving()
	return p.Release()
}

// silent is the answer of an application at Envoy's port.
func silent() error { return fmt.Errorf("%w: i/o timeout", ErrSilent) }

// TestRelease: a pod that is opted out is a target as long as it has redirected
// connections, or nobody can tell; then nothing is left in it.
func TestRelease(t *testing.T) {
	f, n, namespaces := three(t)
	clean := namespaces[2].Dump()
	p, logs := f.observed()
	f.apply(p, n)
	if f.change(func() { namespaces[0].redirected = 1 }); release(p) || len(p.Targets()) != 3 {
		t.Error("pods that are enrolled are released")
	}
	f.change(func() { namespaces[2].redirected = 2 })
	out := withoutPods(n, true, 2)
	f.apply(p, out)
	if release(p) || len(p.Targets()) != 3 {
		t.Errorf("released with connections: %v", p.Targets())
	}
	if s := p.Report()["a/10.1.0.4"]; !strings.Contains(s.Reason, "go on, 2 of them") {
		t.Errorf("report %+v", s)
	}
	f.change(func() { namespaces[2].redirected, namespaces[2].uncounted = 0, errors.New("no netlink") })
	for range 2 {
		if release(p) || !strings.Contains(p.Report()["a/10.1.0.4"].Reason, "no netlink") {
			t.Errorf("released though nobody can tell, or the report doesn't say so: %+v", p.Report())
		}
	}
	if logs.Len() != 1 {
		t.Errorf("logged %v, want one warning", logs.All())
	}
	f.change(func() { namespaces[2].uncounted = nil })
	if !release(p) || len(p.Targets()) != 2 || !p.Pending() {
		t.Errorf("not released: %v", p.Targets())
	}
	if _, there := p.Report()["a/10.1.0.4"]; there {
		t.Error("a report of a pod that is released")
	}
	f.must(p.Apply(t.Context(), f.plan(out)))
	if d := cmp.Diff(clean, namespaces[2].Dump()); d != "" || p.Pending() {
		t.Errorf("left in the pod (-before +after), pending %v:\n%s", p.Pending(), d)
	}
	if release(p) {
		t.Error("released twice")
	}
	// Back in, and out once more.
	f.apply(p, n)
	namespaces[2].Holds("nodevoy-pods6", "fd01::4")
	if len(p.Targets()) != 3 {
		t.Errorf("targets %v", p.Targets())
	}
	f.apply(p, out)
	if !release(p) || len(p.Targets()) != 2 {
		t.Errorf("targets %v", p.Targets())
	}
}

// TestReleaseWaits: a pod keeps its listeners until nothing redirects to them any
// more, and one whose namespace is gone is not spoken of.
func TestReleaseWaits(t *testing.T) {
	f, n, namespaces := three(t)
	p, logs := f.observed()
	f.apply(p, n)
	namespaces[1].Hook = func(*iptables.Fake, string) error { return redirecttest.ErrRefused }
	out := f.plan(withoutPods(n, true, 1))
	f.must(errors.Join(p.Prepare(t.Context(), out), p.Withdraw(t.Context(), out)))
	if release(p) {
		t.Error("released before rules are removed")
	}
	if err := p.Apply(t.Context(), out); !errors.Is(err, ErrPartial) {
		t.Errorf("Apply: %v", err)
	}
	if release(p) || len(p.Targets()) != 3 {
		t.Error("released though rules could not be removed")
	}
	namespaces[1].Hook = nil
	f.change(func() { namespaces[1].uncounted = netns.ErrGone })
	f.pass()
	f.must(p.Apply(t.Context(), out))
	if release(p) || logs.Len() != 0 {
		t.Errorf("released, or logged: %v", logs.All())
	}
}

// TestReleaseOfAPodThatComesBack: what was counted before a pod was enrolled anew says
// nothing about the connections it has had since.
func TestReleaseOfAPodThatComesBack(t *testing.T) {
	f, n, _ := three(t)
	p := f.applied(n)
	out := withoutPods(n, true, 1)
	f.apply(p, out)
	count, began, counted := p.count, make(chan struct{}), make(chan struct{})
	p.count = func(ns namespace) (int, error) {
		close(began)
		<-counted
		return count(ns)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.CountLeaving()
	}()
	<-began
	f.apply(p, n)
	f.apply(p, out)
	close(counted)
	<-ended
	if p.Release() || len(p.Targets()) != 3 {
		t.Errorf("released: %v", p.Targets())
	}
	p.count = count
	if !release(p) || len(p.Targets()) != 2 {
		t.Errorf("targets %v", p.Targets())
	}
}

// TestPodThatListensItself: where a pod listens on a port that Envoy would need, it is
// left alone from then on, also while nobody listens, until it is enrolled anew.
func TestPodThatListensItself(t *testing.T) {
	f, n, namespaces := three(t)
	const uid = "a/10.1.0.4"
	at := namespaces[2].Path() + " [::1]:23723"
	f.unanswered[at] = silent()
	blocked := f.plan(n).Blocking(map[string]string{uid: "can't listen"})
	p := f.pods()
	f.must(errors.Join(p.Prepare(t.Context(), blocked), p.Withdraw(t.Context(), blocked)))
	if err := p.Apply(t.Context(), blocked); !errors.Is(err, ErrPartial) || !errors.Is(err, ErrPortTaken) || !p.Engaged() {
		t.Errorf("error %v, engaged %v", err, p.Engaged())
	}
	if s := p.Report()[uid]; s.Redirecting || s.Reason != "the pod itself listens on a port of Envoy's: [::1]:23723" {
		t.Errorf("report %+v", s)
	}
	if !release(p) || len(p.Targets()) != 2 {
		t.Errorf("targets %v: Envoy keeps its other ports", p.Targets())
	}
	// The application is down, and Envoy, which listens there no more, has no error.
	delete(f.unanswered, at)
	f.asks = nil
	for range 3 {
		f.pass()
		f.must(p.Withdraw(t.Context(), f.plan(n)))
		if err := p.Apply(t.Context(), f.plan(n)); !errors.Is(err, ErrPortTaken) || len(p.Targets()) != 2 || len(f.asks) > 0 {
			t.Errorf("error %v, targets %v, asked %v", err, p.Targets(), f.asks)
		}
		f.must(p.Ask(t.Context()))
		f.asks = nil
	}
	if namespaces[2].Sets.Exists("nodevoy-pods4") {
		t.Error("a set in the pod")
	}
	f.apply(p, withoutPods(n, true, 2))
	f.apply(p, n)
	namespaces[2].Holds("nodevoy-pods4", "10.1.0.4")
	if len(p.Targets()) != 3 {
		t.Errorf("targets %v, want all of a pod that is enrolled anew", p.Targets())
	}
}

// TestPodWithoutListenerIsTriedAgain: Envoy's refusal alone doesn't make a pod one
// that listens itself.
func TestPodWithoutListenerIsTriedAgain(t *testing.T) {
	f, n, namespaces := three(t)
	f.unanswered[namespaces[0].Path()+" 127.0.0.1:23721"] = fmt.Errorf("dial: %w", unix.ECONNREFUSED)
	blocked := f.plan(n).Blocking(map[string]string{"a/10.1.0.2": "no such file"})
	p := f.pods()
	f.must(errors.Join(p.Prepare(t.Context(), blocked), p.Withdraw(t.Context(), blocked)))
	if err := p.Apply(t.Context(), blocked); !errors.Is(err, ErrNoListener) || errors.Is(err, ErrPortTaken) {
		t.Errorf("error %v", err)
	}
	if release(p) || len(p.Targets()) != 3 {
		t.Errorf("targets %v", p.Targets())
	}
	f.apply(p, n)
	namespaces[0].Holds("nodevoy-pods4", "10.1.0.2")
}
