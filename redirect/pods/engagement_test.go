// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// TestPodMoved: a pod whose address went to another namespace between finding and
// applying is not redirected, nor is who has it now.
func TestPodMoved(t *testing.T) {
	f, n, namespaces := three(t)
	p := f.pods()
	plan := f.plan(n)
	f.must(p.Prepare(t.Context(), plan))
	other := f.add("10.1.0.3")
	f.change(func() { namespaces[1].ips = nil })
	if err := p.Apply(t.Context(), plan); !errors.Is(err, ErrPartial) || !errors.Is(err, netns.ErrGone) {
		t.Errorf("error %v, want ErrPartial and ErrGone", err)
	}
	if namespaces[1].Sets.Exists("nodevoy-http4") || other.Sets.Exists("nodevoy-http4") {
		t.Error("something was written")
	}
	// The pod is looked for again, and it is that other one.
	if !p.Relocate(t.Context(), plan) {
		t.Error("Relocate says nothing has changed")
	}
	f.must(p.Apply(t.Context(), plan))
	other.Holds("nodevoy-pods4", "10.1.0.3")
	if namespaces[1].open != 0 {
		t.Error("the namespace before is still open")
	}
}

// TestPodGoneMeanwhile: a redirected pod that is deleted in the middle of an Apply.
func TestPodGoneMeanwhile(t *testing.T) {
	f, n, namespaces := three(t)
	p := f.applied(n)
	f.change(func() { namespaces[1].gone = true })
	n.Frontends = n.Frontends[1:]
	plan := f.plan(n)
	f.must(p.Withdraw(t.Context(), plan))
	n.Frontends = append(n.Frontends, redirecttest.Node(t, []string{"http 10.96.0.7:80"}).Frontends...)
	if err := p.Apply(t.Context(), f.plan(n)); !errors.Is(err, ErrPartial) {
		t.Errorf("error %v, want ErrPartial", err)
	}
	namespaces[1].Holds("nodevoy-pods4")
	namespaces[0].Holds("nodevoy-http4", "10.96.0.7,tcp:80")
	f.apply(p, withoutPods(n, false, 1))
}

// TestLateIPv6: a pod is redirected for the addresses it has, and for others when
// they come up.
func TestLateIPv6(t *testing.T) {
	f, n, namespaces := three(t)
	namespaces[2].ips = namespaces[2].ips[:1]
	p := f.applied(n)
	namespaces[2].Holds("nodevoy-pods4", "10.1.0.4")
	if targets := p.Targets(); targets[2].V6 || !strings.Contains(p.Report()["a/10.1.0.4"].Reason, "on no link yet: [fd01::4]") {
		t.Errorf("targets %v, report %+v", targets, p.Report()["a/10.1.0.4"])
	}
	plan := f.plan(n)
	if p.Relocate(t.Context(), plan) {
		t.Error("Relocate says that something has changed")
	}
	f.change(func() { namespaces[2].ips = append(namespaces[2].ips, netip.MustParseAddr("fd01::4")) })
	if !p.Relocate(t.Context(), plan) || !p.Targets()[2].V6 {
		t.Error("Relocate missed the address")
	}
	f.must(p.Apply(t.Context(), plan))
	namespaces[2].Holds("nodevoy-pods6", "fd01::4")
	// And down again.
	f.change(func() { namespaces[2].ips = namespaces[2].ips[:1] })
	f.apply(p, n)
	namespaces[2].Holds("nodevoy-pods4", "10.1.0.4")
	f.now = f.now.Add(20 * time.Second)
	f.must(p.Refresh(t.Context()))
	for _, set := range []string{"nodevoy-pods6"} {
		if members, err := namespaces[2].Sets.Members(set); err == nil && len(members) > 0 {
			t.Errorf("%s holds %v", set, members)
		}
	}
}

// TestAsk: what one pod can't answer another can, and then it is the pod that is
// not redirected.
func TestAsk(t *testing.T) {
	f, n, namespaces := three(t)
	p := f.applied(n)
	f.asks = nil
	for range 3 {
		f.must(p.Ask(t.Context()))
	}
	slices.Sort(f.asks)
	if len(slices.Compact(f.asks)) != 3 {
		t.Errorf("asked %v, want each pod once", f.asks)
	}
	f.unanswered[namespaces[1].Path()] = redirecttest.ErrRefused
	for range 3 {
		f.must(p.Ask(t.Context()))
	}
	namespaces[1].Holds("nodevoy-pods4")
	f.pass()
	if s := p.Report()["a/10.1.0.3"]; s.Redirecting || !strings.Contains(s.Reason, "no answer by Envoy") || !p.Pending() || !p.Engaged() {
		t.Errorf("report %+v, pending %v, engaged %v", s, p.Pending(), p.Engaged())
	}
	for _, s := range namespaces {
		f.unanswered[s.Path()] = redirecttest.ErrRefused
	}
	if err := p.Ask(t.Context()); !errors.Is(err, ErrUnanswered) {
		t.Errorf("Ask: %v, want ErrUnanswered", err)
	}
	namespaces[0].Holds("nodevoy-pods4", "10.1.0.2")
	// A pod that is going is asked in vain, and that means nothing.
	f.change(func() {
		for _, s := range namespaces {
			s.gone = true
		}
	})
	f.must(p.Ask(t.Context()))
}

// TestPodsDisengageDuringApply: in whatever pod Apply is, none stays redirected.
func TestPodsDisengageDuringApply(t *testing.T) {
	for at := range 3 {
		f, n, namespaces := three(t)
		p := f.pods()
		namespaces[at].Hook = func(*iptables.Fake, string) error { return p.Disengage() }
		if err := f.round(p, n); !errors.Is(err, apply.ErrDisengaged) {
			t.Errorf("Apply: %v, want ErrReleased", err)
		}
		for _, s := range namespaces {
			s.Holds("nodevoy-pods4")
		}
		if p.Engaged() {
			t.Error("engaged")
		}
		if err := p.Refresh(t.Context()); !errors.Is(err, apply.ErrDisengaged) {
			t.Errorf("Refresh: %v, want ErrReleased", err)
		}
		namespaces[at].Hook = nil
		f.apply(p, n)
		namespaces[at].Holds("nodevoy-pods4", fmt.Sprintf("10.1.0.%d", at+2))
	}
}

// TestPodsDisengageRace: Disengage at any moment, from several goroutines; when all
// has ended, the last Disengage counts.
func TestPodsDisengageRace(t *testing.T) {
	f, n, namespaces := three(t)
	p := f.pods()
	plan := f.plan(n)
	f.must(p.Prepare(t.Context(), plan))
	for range 200 {
		done := make(chan error, 3)
		go func() { done <- p.Apply(t.Context(), plan) }()
		go func() { done <- p.Refresh(t.Context()) }()
		go func() { done <- p.Disengage() }()
		var released error
		for range 3 {
			if err := <-done; err != nil && !errors.Is(err, apply.ErrDisengaged) {
				t.Fatal(err)
			} else if err != nil {
				released = err
			}
		}
		for _, s := range namespaces {
			h, err := s.Sets.Header("nodevoy-pods4")
			if err == nil && (h.Count > 0) != p.Engaged() {
				t.Fatalf("engaged %v, and %s has %d members (%v)", p.Engaged(), s.Path(), h.Count, released)
			}
		}
	}
}

// TestPodsCleanup: by an agent that knows nothing, wherever something is left.
func TestPodsCleanup(t *testing.T) {
	f, n, namespaces := three(t)
	stranger := f.add("10.1.0.99")
	f.must(stranger.Sets.Create(netfilter.SetSpec{Name: "foreign", Type: netfilter.HashIP, MaxElements: 1}))
	var before []string
	for _, s := range append(namespaces, stranger) {
		before = append(before, s.Dump())
	}
	f.applied(n)
	f.cfg.Backend = netfilter.Legacy
	f.applied(n)
	f.cfg.Backend = netfilter.AutoBackend
	for range 2 {
		f.must(f.pods().Cleanup(t.Context()))
		for i, s := range append(namespaces, stranger) {
			if d := cmp.Diff(before[i], s.Dump()); d != "" {
				t.Errorf("%s (-before +after):\n%s", s.Path(), d)
			}
		}
	}
	if f.opened != 0 {
		t.Errorf("%d namespaces were not closed", f.opened)
	}
	namespaces[0].open -= 2 // of the two agents that are no more
	for _, s := range append(namespaces[:1], stranger) {
		if s.open != 0 {
			t.Errorf("%s: %d sockets left open", s.Path(), s.open)
		}
	}
}

// TestPodsSweep: a new agent removes what is left in pods that were opted out
// while there was none, and not what it is about to use.
func TestPodsSweep(t *testing.T) {
	f, n, namespaces := three(t)
	clean := namespaces[0].Dump()
	f.applied(n)
	p := f.applied(withoutPods(n, true, 0))
	if d := cmp.Diff(rested(clean, "ipv4"), namespaces[0].Dump()); d != "" {
		t.Errorf("left in the pod (-before +after):\n%s", d)
	}
	namespaces[1].Holds("nodevoy-pods4", "10.1.0.3")
	if len(p.Targets()) != 2 {
		t.Errorf("targets %v", p.Targets())
	}
}

// TestPodsDrift: what somebody did to one pod is found there and mended.
func TestPodsDrift(t *testing.T) {
	f, n, namespaces := three(t)
	p := f.applied(n)
	before := namespaces[2].Dump()
	f.must(namespaces[2].Tables[0].Restore(t.Context(), "*nat\n-F OUTPUT\n-F NODEVOY-OUTPUT\n-X NODEVOY-OUTPUT\nCOMMIT\n"))
	f.must(namespaces[2].Sets.Flush("nodevoy-http4"))
	f.must(namespaces[2].Sets.Flush("nodevoy-pods4"))
	found, err := p.Drift(t.Context(), f.plan(n))
	f.must(err)
	var names []string
	for _, d := range found {
		names = append(names, d.Kind+" "+d.Name)
	}
	want := []string{
		"chain a/10.1.0.4: ipv4 nat NODEVOY-OUTPUT", "jump a/10.1.0.4: ipv4 nat OUTPUT",
		"members a/10.1.0.4: nodevoy-http4", "members a/10.1.0.4: nodevoy-pods4",
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("found (-want +got):\n%s", d)
	}
	f.must(p.Apply(t.Context(), f.plan(n)))
	if d := cmp.Diff(before, namespaces[2].Dump()); d != "" {
		t.Errorf("after the repair (-before +after):\n%s", d)
	}
	if again, err := p.Drift(t.Context(), f.plan(n)); err != nil || len(again) > 0 {
		t.Errorf("after the repair: %v, %v", again, err)
	}
}

// TestPodsOwnRuleLater: a redirected pod that makes a nat rule is redirected no more.
func TestPodsOwnRuleLater(t *testing.T) {
	f, n, namespaces := three(t)
	p := f.applied(n)
	f.must(namespaces[0].Tables[0].Restore(t.Context(), "*nat\n-A OUTPUT -p tcp -j ACCEPT\nCOMMIT\n"))
	found, err := p.Drift(t.Context(), f.plan(n))
	f.must(err)
	if len(found) != 1 || found[0].Kind != apply.DriftForeign || !strings.Contains(found[0].Detail, "-A OUTPUT -p tcp -j ACCEPT") {
		t.Errorf("found %v", found)
	}
	if err := p.Apply(t.Context(), f.plan(n)); !errors.Is(err, ErrPartial) || !errors.Is(err, apply.ErrForeignRules) {
		t.Errorf("Apply: %v, want ErrForeign", err)
	}
	namespaces[0].Holds("nodevoy-pods4")
	if found, err := p.Drift(t.Context(), f.plan(n)); err != nil || len(found) > 0 {
		t.Errorf("found again: %v, %v", found, err)
	}
}

// TestPodsCanceled: nobody is blamed for an Apply that was to end.
func TestPodsCanceled(t *testing.T) {
	f, n, _ := three(t)
	p := f.pods()
	f.must(p.Prepare(t.Context(), f.plan(n)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Apply(ctx, f.plan(n)); !errors.Is(err, context.Canceled) || errors.Is(err, ErrPartial) {
		t.Errorf("Apply: %v", err)
	}
	if s := p.Report()["a/10.1.0.2"]; s.Reason != "not redirected yet" {
		t.Errorf("report %+v", s)
	}
}

// TestPodsAllAtOnce: everything that may be called at any time is, while pods come
// and go.
func TestPodsAllAtOnce(t *testing.T) {
	f, n, namespaces := three(t)
	p := f.pods()
	stop := make(chan struct{})
	var others sync.WaitGroup
	for _, call := range []func() error{
		p.Disengage,
		func() error { return p.Refresh(t.Context()) },
		func() error { return p.Ask(t.Context()) },
		func() error {
			_, _, _ = p.Targets(), p.Report(), p.Pending()
			return nil
		},
	} {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := call(); err != nil && !errors.Is(err, apply.ErrDisengaged) {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 60 {
		f.change(func() { namespaces[i%3].gone = !namespaces[i%3].gone })
		m := withoutPods(n, i%2 == 0, i%4)
		if err := f.round(p, m); err != nil && !errors.Is(err, apply.ErrDisengaged) && !errors.Is(err, ErrPartial) {
			t.Error(err)
		}
		if _, err := p.Drift(t.Context(), f.plan(m)); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	others.Wait()
	f.change(func() {
		for _, s := range namespaces {
			s.gone = false
		}
	})
	f.apply(p, n)
	for i, s := range namespaces {
		s.Holds("nodevoy-pods4", fmt.Sprintf("10.1.0.%d", i+2))
	}
	f.must(p.Close())
	for _, s := range namespaces {
		if s.open != 0 {
			t.Errorf("%s: %d sockets left open", s.Path(), s.open)
		}
	}
}
