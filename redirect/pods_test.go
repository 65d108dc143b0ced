// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// three is a node with three enrolled pods, the last of both families, and the
// namespaces of all.
func three(t *testing.T) (*fleet, *model.Node, []*fakeSpace) {
	t.Helper()
	f := newFleet(t)
	spaces := []*fakeSpace{f.add("10.1.0.2"), f.add("10.1.0.3"), f.add("10.1.0.4", "fd01::4")}
	n := node(t, []string{"http 10.96.0.1:80", "tcp 10.96.0.2:5432", "http [fd96::1]:80"}, "10.1.0.2", "10.1.0.3", "10.1.0.4")
	n.Pods[2].IPs = append(n.Pods[2].IPs, netip.MustParseAddr("fd01::4"))
	return f, n, spaces
}

// withoutPods is the node but without pods of these numbers, or with them opted out.
func withoutPods(n *model.Node, living bool, numbers ...int) *model.Node {
	m := *n
	m.Pods = nil
	for i, pod := range n.Pods {
		switch {
		case !slices.Contains(numbers, i):
			m.Pods = append(m.Pods, pod)
		case living:
			pod.Enrolled = false
			m.Pods = append(m.Pods, pod)
		}
	}
	return &m
}

// rested is the dump of a clean pod with what stays after redirection has ended.
func rested(clean string, families ...string) string {
	for _, f := range families {
		base := "nft" + f + "natOUTPUT\n\n"
		clean = strings.Replace(clean, base, base+"nft"+f+"natNODEVOY-OUTPUT\n-A NODEVOY-OUTPUT -m conntrack --ctstate NEW -j RETURN\n", 1)
	}
	return clean
}

func TestPods(t *testing.T) {
	f, n, spaces := three(t)
	p := f.applied(n)
	for i, s := range spaces {
		s.holds("nodevoy-pods4", fmt.Sprintf("10.1.0.%d", i+2))
		s.holds("nodevoy-http4", "10.96.0.1,tcp:80")
		s.holds("nodevoy-tcp4", "10.96.0.2,tcp:5432")
	}
	spaces[2].holds("nodevoy-pods6", "fd01::4")
	spaces[2].holds("nodevoy-http6", "fd96::1,tcp:80")
	if spaces[0].sets.Exists("nodevoy-pods6") {
		t.Error("a pod without IPv6 has a set for it")
	}
	want := []Place{
		{"a", "10.1.0.2", "a/10.1.0.2", "/run/netns/cni-1", true, false},
		{"a", "10.1.0.3", "a/10.1.0.3", "/run/netns/cni-2", true, false},
		{"a", "10.1.0.4", "a/10.1.0.4", "/run/netns/cni-3", true, true},
	}
	if d := cmp.Diff(want, p.Places()); d != "" {
		t.Errorf("places (-want +got):\n%s", d)
	}
	for uid, s := range p.Report() {
		if !s.Redirecting || s.Reason != "" || s.Netns == "" {
			t.Errorf("%s: %+v", uid, s)
		}
	}
	slices.Sort(f.asks)
	asked := []string{"/run/netns/cni-1 127.0.0.1:15002", "/run/netns/cni-2 127.0.0.1:15002", "/run/netns/cni-3 127.0.0.1:15002"}
	if d := cmp.Diff(asked, f.asks); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
	// No table but nat; there is no Network to touch.
	for _, s := range spaces {
		for _, fake := range s.tables {
			for _, table := range []string{"raw", "mangle", "filter"} {
				for _, h := range hooks() {
					if rules, err := fake.List(t.Context(), table, h.Chain); err == nil {
						t.Errorf("%s %s in a pod: %q", table, h.Chain, rules)
					}
				}
			}
		}
	}
	if p.Pending() {
		t.Error("pending after all was applied")
	}
}

// TestPodsUnchanged: what holds is not written again, and a change is written in
// all pods.
func TestPodsUnchanged(t *testing.T) {
	f, n, spaces := three(t)
	p := f.applied(n)
	for _, s := range spaces {
		s.hook = func(*iptables.Fake, string) error { return errRefused }
	}
	f.asks = nil
	f.apply(p, n)
	if len(f.asks) > 0 {
		t.Errorf("asked again: %v", f.asks)
	}
	n.Frontends = append(n.Frontends, node(t, []string{"http 10.96.0.9:80"}).Frontends...)
	n.Frontends[1].Bypass = "because"
	f.apply(p, n)
	for _, s := range spaces {
		s.holds("nodevoy-http4", "10.96.0.1,tcp:80", "10.96.0.9,tcp:80")
		s.holds("nodevoy-tcp4")
	}
}

// TestPodsPartial: what is wrong with one pod is said of it, and holds up nobody.
func TestPodsPartial(t *testing.T) {
	for what, tc := range map[string]struct {
		spoil  func(f *fleet, s *fakeSpace)
		reason string
		mend   func(f *fleet, s *fakeSpace)
	}{
		"no namespace": {
			func(_ *fleet, s *fakeSpace) { s.gone = true }, "no network namespace of the pod found",
			func(_ *fleet, s *fakeSpace) { s.gone = false },
		},
		"no listener": {
			func(f *fleet, s *fakeSpace) { f.unanswered[s.Path()] = errRefused }, "does not answer: refused by the test",
			func(f *fleet, _ *fakeSpace) { clear(f.unanswered) },
		},
		"own rule": {
			func(f *fleet, s *fakeSpace) {
				f.must(s.tables[0].Restore(f.t.Context(), "*nat\n-A OUTPUT -j ACCEPT\nCOMMIT\n"))
			}, "nat rules of its own: ipv4 nft nat: -A OUTPUT -j ACCEPT",
			func(f *fleet, s *fakeSpace) { f.must(s.tables[0].Restore(f.t.Context(), "*nat\n-F OUTPUT\nCOMMIT\n")) },
		},
		"own rule of the other backend": {
			func(f *fleet, s *fakeSpace) {
				f.must(s.tables[2].Restore(f.t.Context(), "*nat\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -p tcp -j ISTIO_OUTPUT\nCOMMIT\n"))
			}, "nat rules of its own: ipv4 legacy nat: -A OUTPUT -p tcp -j ISTIO_OUTPUT",
			func(f *fleet, s *fakeSpace) { f.must(s.tables[2].Restore(f.t.Context(), "*nat\n-F OUTPUT\nCOMMIT\n")) },
		},
		"native nft rule": {
			func(_ *fleet, s *fakeSpace) { s.tables[0].Natives = []string{"inet mine out"} }, "nft chain inet mine out",
			func(_ *fleet, s *fakeSpace) { s.tables[0].Natives = nil },
		},
		"refused rules": {
			func(_ *fleet, s *fakeSpace) { s.hook = func(*iptables.Fake, string) error { return errRefused } }, "refused by the test",
			func(_ *fleet, s *fakeSpace) { s.hook = nil },
		},
	} {
		t.Run(what, func(t *testing.T) {
			f, n, spaces := three(t)
			tc.spoil(f, spaces[1])
			p := f.pods()
			err := f.round(p, n)
			if !errors.Is(err, ErrPartial) || !strings.Contains(err.Error(), "a/10.1.0.3") {
				t.Errorf("error %v, want ErrPartial that names the pod", err)
			}
			if s := p.Report()["a/10.1.0.3"]; s.Redirecting || !strings.Contains(s.Reason, tc.reason) {
				t.Errorf("report %+v, want the reason %q", s, tc.reason)
			}
			if spaces[1].sets.Exists("nodevoy-pods4") {
				spaces[1].holds("nodevoy-pods4")
			}
			spaces[0].holds("nodevoy-pods4", "10.1.0.2")
			spaces[2].holds("nodevoy-pods4", "10.1.0.4")
			if !p.Engaged() {
				t.Error("the others are not engaged")
			}
			tc.mend(f, spaces[1])
			if changed := p.Relocate(t.Context(), f.plan(n)); changed != (what == "no namespace") {
				t.Errorf("Relocate says changed: %v", changed)
			}
			if !p.Pending() {
				t.Error("not pending")
			}
			f.must(p.Apply(t.Context(), f.plan(n)))
			spaces[1].holds("nodevoy-pods4", "10.1.0.3")
			if s := p.Report()["a/10.1.0.3"]; !s.Redirecting || s.Reason != "" {
				t.Errorf("report after the repair: %+v", s)
			}
		})
	}
}

// TestPodsAllFail: when no pod is redirected it is no trouble of one pod's.
func TestPodsAllFail(t *testing.T) {
	f, n, spaces := three(t)
	for _, s := range spaces {
		f.unanswered[s.Path()] = errRefused
	}
	p := f.pods()
	if err := f.round(p, n); err == nil || errors.Is(err, ErrPartial) || !errors.Is(err, ErrUnanswered) {
		t.Errorf("error %v, want ErrUnanswered and not ErrPartial", err)
	}
	if p.Engaged() {
		t.Error("engaged")
	}
	f.cfg.Backend = iptables.AutoBackend
	if err := f.round(f.pods(), n); err == nil || !strings.Contains(err.Error(), "backend") {
		t.Errorf("Apply without a backend: %v", err)
	}
}

// TestPodsNone: a node without enrolled pods is as well as any other.
func TestPodsNone(t *testing.T) {
	f := newFleet(t)
	p := f.applied(node(t, nil))
	f.must(p.Ask(t.Context()))
	f.must(p.Refresh(t.Context()))
	if !p.Engaged() || len(p.Report()) > 0 || p.Pending() {
		t.Error("not engaged, or pods out of nowhere")
	}
}

// TestPodUnenrolled: a pod that is opted out stops being redirected at once, loses
// what is ours but keeps its listeners, until it is gone.
func TestPodUnenrolled(t *testing.T) {
	f, n, spaces := three(t)
	clean := spaces[2].dump()
	p := f.applied(n)
	out := f.plan(withoutPods(n, true, 2))
	f.must(p.Prepare(t.Context(), out))
	f.must(p.Withdraw(t.Context(), out))
	spaces[2].holds("nodevoy-pods4")
	spaces[2].holds("nodevoy-pods6")
	f.must(p.Apply(t.Context(), out))
	if d := cmp.Diff(rested(clean, "ipv4", "ipv6"), spaces[2].dump()); d != "" {
		t.Errorf("left in the pod (-before +after):\n%s", d)
	}
	if places := p.Places(); len(places) != 3 || !places[2].V6 {
		t.Errorf("places %v, want the pod's to stay as it is", places)
	}
	if s := p.Report()["a/10.1.0.4"]; s.Redirecting || !strings.Contains(s.Reason, "not enrolled any more") {
		t.Errorf("report %+v", s)
	}
	f.must(p.Refresh(t.Context()))
	// Back in.
	f.apply(p, n)
	spaces[2].holds("nodevoy-pods6", "fd01::4")
	// Out, and gone.
	f.apply(p, withoutPods(n, true, 2))
	f.apply(p, withoutPods(n, false, 2))
	if places := p.Places(); len(places) != 2 || spaces[2].open != 0 || !slices.Equal(f.released, []string{"a/10.1.0.4"}) {
		t.Errorf("places %v, %d sockets open, released %v", places, spaces[2].open, f.released)
	}
	if _, there := p.Report()["a/10.1.0.4"]; there {
		t.Error("a report of a pod that is gone")
	}
}

// TestPodMoved: a pod whose address went to another namespace between finding and
// applying is not redirected, nor is who has it now.
func TestPodMoved(t *testing.T) {
	f, n, spaces := three(t)
	p := f.pods()
	plan := f.plan(n)
	f.must(p.Prepare(t.Context(), plan))
	other := f.add("10.1.0.3")
	f.change(func() { spaces[1].ips = nil })
	if err := p.Apply(t.Context(), plan); !errors.Is(err, ErrPartial) || !errors.Is(err, netns.ErrGone) {
		t.Errorf("error %v, want ErrPartial and ErrGone", err)
	}
	if spaces[1].sets.Exists("nodevoy-http4") || other.sets.Exists("nodevoy-http4") {
		t.Error("something was written")
	}
	// The pod is looked for again, and it is that other one.
	if !p.Relocate(t.Context(), plan) {
		t.Error("Relocate says nothing has changed")
	}
	f.must(p.Apply(t.Context(), plan))
	other.holds("nodevoy-pods4", "10.1.0.3")
	if spaces[1].open != 0 {
		t.Error("the namespace before is still open")
	}
}

// TestPodGoneMeanwhile: a redirected pod that is deleted in the middle of an Apply.
func TestPodGoneMeanwhile(t *testing.T) {
	f, n, spaces := three(t)
	p := f.applied(n)
	f.change(func() { spaces[1].gone = true })
	n.Frontends = n.Frontends[1:]
	plan := f.plan(n)
	f.must(p.Withdraw(t.Context(), plan))
	n.Frontends = append(n.Frontends, node(t, []string{"http 10.96.0.7:80"}).Frontends...)
	if err := p.Apply(t.Context(), f.plan(n)); !errors.Is(err, ErrPartial) {
		t.Errorf("error %v, want ErrPartial", err)
	}
	spaces[1].holds("nodevoy-pods4")
	spaces[0].holds("nodevoy-http4", "10.96.0.7,tcp:80")
	f.apply(p, withoutPods(n, false, 1))
}

// TestLateIPv6: a pod is redirected for the addresses it has, and for others when
// they come up.
func TestLateIPv6(t *testing.T) {
	f, n, spaces := three(t)
	spaces[2].ips = spaces[2].ips[:1]
	p := f.applied(n)
	spaces[2].holds("nodevoy-pods4", "10.1.0.4")
	if places := p.Places(); places[2].V6 || !strings.Contains(p.Report()["a/10.1.0.4"].Reason, "on no link yet: [fd01::4]") {
		t.Errorf("places %v, report %+v", places, p.Report()["a/10.1.0.4"])
	}
	plan := f.plan(n)
	if p.Relocate(t.Context(), plan) {
		t.Error("Relocate says that something has changed")
	}
	f.change(func() { spaces[2].ips = append(spaces[2].ips, netip.MustParseAddr("fd01::4")) })
	if !p.Relocate(t.Context(), plan) || !p.Places()[2].V6 {
		t.Error("Relocate missed the address")
	}
	f.must(p.Apply(t.Context(), plan))
	spaces[2].holds("nodevoy-pods6", "fd01::4")
	// And down again.
	f.change(func() { spaces[2].ips = spaces[2].ips[:1] })
	f.apply(p, n)
	spaces[2].holds("nodevoy-pods4", "10.1.0.4")
	f.now = f.now.Add(20 * time.Second)
	f.must(p.Refresh(t.Context()))
	for _, set := range []string{"nodevoy-pods6"} {
		if members, err := spaces[2].sets.Members(set); err == nil && len(members) > 0 {
			t.Errorf("%s holds %v", set, members)
		}
	}
}

// TestAsk: what one pod can't answer another can, and then it is the pod that is
// not redirected.
func TestAsk(t *testing.T) {
	f, n, spaces := three(t)
	p := f.applied(n)
	f.asks = nil
	for range 3 {
		f.must(p.Ask(t.Context()))
	}
	slices.Sort(f.asks)
	if len(slices.Compact(f.asks)) != 3 {
		t.Errorf("asked %v, want each pod once", f.asks)
	}
	f.unanswered[spaces[1].Path()] = errRefused
	for range 3 {
		f.must(p.Ask(t.Context()))
	}
	spaces[1].holds("nodevoy-pods4")
	if s := p.Report()["a/10.1.0.3"]; s.Redirecting || !strings.Contains(s.Reason, "does not answer") || !p.Pending() || !p.Engaged() {
		t.Errorf("report %+v, pending %v, engaged %v", s, p.Pending(), p.Engaged())
	}
	for _, s := range spaces {
		f.unanswered[s.Path()] = errRefused
	}
	if err := p.Ask(t.Context()); !errors.Is(err, ErrUnanswered) {
		t.Errorf("Ask: %v, want ErrUnanswered", err)
	}
	spaces[0].holds("nodevoy-pods4", "10.1.0.2")
	// A pod that is going is asked in vain, and that means nothing.
	f.change(func() {
		for _, s := range spaces {
			s.gone = true
		}
	})
	f.must(p.Ask(t.Context()))
}

// TestPodsReleaseDuringApply: in whatever pod Apply is, none stays redirected.
func TestPodsReleaseDuringApply(t *testing.T) {
	for at := range 3 {
		f, n, spaces := three(t)
		p := f.pods()
		spaces[at].hook = func(*iptables.Fake, string) error { return p.Release() }
		if err := f.round(p, n); !errors.Is(err, ErrReleased) {
			t.Errorf("Apply: %v, want ErrReleased", err)
		}
		for _, s := range spaces {
			s.holds("nodevoy-pods4")
		}
		if p.Engaged() {
			t.Error("engaged")
		}
		if err := p.Refresh(t.Context()); !errors.Is(err, ErrReleased) {
			t.Errorf("Refresh: %v, want ErrReleased", err)
		}
		spaces[at].hook = nil
		f.apply(p, n)
		spaces[at].holds("nodevoy-pods4", fmt.Sprintf("10.1.0.%d", at+2))
	}
}

// TestPodsReleaseRace: releases at any moment, from several goroutines; when all
// has ended, who was released last is released.
func TestPodsReleaseRace(t *testing.T) {
	f, n, spaces := three(t)
	p := f.pods()
	plan := f.plan(n)
	f.must(p.Prepare(t.Context(), plan))
	for range 200 {
		done := make(chan error, 3)
		go func() { done <- p.Apply(t.Context(), plan) }()
		go func() { done <- p.Refresh(t.Context()) }()
		go func() { done <- p.Release() }()
		var released error
		for range 3 {
			if err := <-done; err != nil && !errors.Is(err, ErrReleased) {
				t.Fatal(err)
			} else if err != nil {
				released = err
			}
		}
		for _, s := range spaces {
			h, err := s.sets.Header("nodevoy-pods4")
			if err == nil && (h.Count > 0) != p.Engaged() {
				t.Fatalf("engaged %v, and %s has %d members (%v)", p.Engaged(), s.Path(), h.Count, released)
			}
		}
	}
}

// TestPodsCleanup: by an agent that knows nothing, wherever something is left.
func TestPodsCleanup(t *testing.T) {
	f, n, spaces := three(t)
	stranger := f.add("10.1.0.99")
	f.must(stranger.sets.Create(ipset.Spec{Name: "foreign", Type: ipset.HashIP, MaxElements: 1}))
	var before []string
	for _, s := range append(spaces, stranger) {
		before = append(before, s.dump())
	}
	f.applied(n)
	f.cfg.Backend = iptables.Legacy
	f.applied(n)
	f.cfg.Backend = iptables.AutoBackend
	for range 2 {
		f.must(f.pods().Cleanup(t.Context()))
		for i, s := range append(spaces, stranger) {
			if d := cmp.Diff(before[i], s.dump()); d != "" {
				t.Errorf("%s (-before +after):\n%s", s.Path(), d)
			}
		}
	}
	if f.opened != 0 {
		t.Errorf("%d namespaces were not closed", f.opened)
	}
	spaces[0].open -= 2 // of the two agents that are no more
	for _, s := range append(spaces[:1], stranger) {
		if s.open != 0 {
			t.Errorf("%s: %d sockets left open", s.Path(), s.open)
		}
	}
}

// TestPodsSweep: a new agent removes what is left in pods that were opted out
// while there was none, and not what it is about to use.
func TestPodsSweep(t *testing.T) {
	f, n, spaces := three(t)
	clean := spaces[0].dump()
	f.applied(n)
	p := f.applied(withoutPods(n, true, 0))
	if d := cmp.Diff(rested(clean, "ipv4"), spaces[0].dump()); d != "" {
		t.Errorf("left in the pod (-before +after):\n%s", d)
	}
	spaces[1].holds("nodevoy-pods4", "10.1.0.3")
	if len(p.Places()) != 2 {
		t.Errorf("places %v", p.Places())
	}
}

// TestPodsDrift: what somebody did to one pod is found there and mended.
func TestPodsDrift(t *testing.T) {
	f, n, spaces := three(t)
	p := f.applied(n)
	before := spaces[2].dump()
	f.must(spaces[2].tables[0].Restore(t.Context(), "*nat\n-F OUTPUT\n-F NODEVOY-OUTPUT\n-X NODEVOY-OUTPUT\nCOMMIT\n"))
	f.must(spaces[2].sets.Flush("nodevoy-http4"))
	f.must(spaces[2].sets.Flush("nodevoy-pods4"))
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
	if d := cmp.Diff(before, spaces[2].dump()); d != "" {
		t.Errorf("after the repair (-before +after):\n%s", d)
	}
	if again, err := p.Drift(t.Context(), f.plan(n)); err != nil || len(again) > 0 {
		t.Errorf("after the repair: %v, %v", again, err)
	}
}

// TestPodsOwnRuleLater: a redirected pod that makes a nat rule is redirected no more.
func TestPodsOwnRuleLater(t *testing.T) {
	f, n, spaces := three(t)
	p := f.applied(n)
	f.must(spaces[0].tables[0].Restore(t.Context(), "*nat\n-A OUTPUT -p tcp -j ACCEPT\nCOMMIT\n"))
	found, err := p.Drift(t.Context(), f.plan(n))
	f.must(err)
	if len(found) != 1 || found[0].Kind != DriftForeign || !strings.Contains(found[0].Detail, "-A OUTPUT -p tcp -j ACCEPT") {
		t.Errorf("found %v", found)
	}
	if err := p.Apply(t.Context(), f.plan(n)); !errors.Is(err, ErrPartial) || !errors.Is(err, ErrForeign) {
		t.Errorf("Apply: %v, want ErrForeign", err)
	}
	spaces[0].holds("nodevoy-pods4")
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
