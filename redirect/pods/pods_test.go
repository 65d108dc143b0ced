// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// three is a node with three enrolled pods, the last of both families, and the
// namespaces of all.
func three(t *testing.T) (*fixture, *model.Node, []*fakeNamespace) {
	t.Helper()
	f := newFixture(t)
	namespaces := []*fakeNamespace{f.add("10.1.0.2"), f.add("10.1.0.3"), f.add("10.1.0.4", "fd01::4")}
	n := redirecttest.Node(t, []string{"http 10.96.0.1:80", "tcp 10.96.0.2:5432", "http [fd96::1]:80"}, "10.1.0.2", "10.1.0.3", "10.1.0.4")
	n.Pods[2].IPs = append(n.Pods[2].IPs, netip.MustParseAddr("fd01::4"))
	return f, n, namespaces
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
	f, n, namespaces := three(t)
	var commands [3]int
	for i, s := range namespaces {
		s.Hook = func(*iptables.Fake, string) error {
			commands[i]++
			return nil
		}
	}
	p := f.applied(n)
	if commands != [3]int{1, 1, 2} {
		t.Errorf("commands run in the pods: %v, want one for each family", commands)
	}
	for i, s := range namespaces {
		s.Holds("nodevoy-pods4", fmt.Sprintf("10.1.0.%d", i+2))
		s.Holds("nodevoy-http4", "10.96.0.1,tcp:80")
		s.Holds("nodevoy-tcp4", "10.96.0.2,tcp:5432")
	}
	namespaces[2].Holds("nodevoy-pods6", "fd01::4")
	namespaces[2].Holds("nodevoy-http6", "fd96::1,tcp:80")
	if namespaces[0].Sets.Exists("nodevoy-pods6") {
		t.Error("a pod without IPv6 has a set for it")
	}
	want := []model.PodTarget{
		{Namespace: "a", Pod: "10.1.0.2", UID: "a/10.1.0.2", Netns: "/run/netns/cni-1", V4: true},
		{Namespace: "a", Pod: "10.1.0.3", UID: "a/10.1.0.3", Netns: "/run/netns/cni-2", V4: true},
		{Namespace: "a", Pod: "10.1.0.4", UID: "a/10.1.0.4", Netns: "/run/netns/cni-3", V4: true, V6: true},
	}
	if d := cmp.Diff(want, p.Targets()); d != "" {
		t.Errorf("pods (-want +got):\n%s", d)
	}
	for uid, s := range p.Report() {
		if !s.Redirecting || s.Reason != "" || s.Netns == "" {
			t.Errorf("%s: %+v", uid, s)
		}
	}
	slices.Sort(f.asks)
	asked := []string{"/run/netns/cni-1 127.0.0.1:23722", "/run/netns/cni-2 127.0.0.1:23722", "/run/netns/cni-3 127.0.0.1:23722"}
	if d := cmp.Diff(asked, f.asks); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
	// No table but nat; there is no Network to touch.
	for _, s := range namespaces {
		for _, fake := range s.Tables {
			for _, table := range []string{"raw", "mangle", "filter"} {
				for _, h := range plan.Hooks() {
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
	f, n, namespaces := three(t)
	p := f.applied(n)
	for _, s := range namespaces {
		s.Hook = func(*iptables.Fake, string) error { return redirecttest.ErrRefused }
	}
	f.asks = nil
	f.apply(p, n)
	if len(f.asks) > 0 {
		t.Errorf("asked again: %v", f.asks)
	}
	n.Frontends = append(n.Frontends, redirecttest.Node(t, []string{"http 10.96.0.9:80"}).Frontends...)
	n.Frontends[1].Bypass = "because"
	f.apply(p, n)
	for _, s := range namespaces {
		s.Holds("nodevoy-http4", "10.96.0.1,tcp:80", "10.96.0.9,tcp:80")
		s.Holds("nodevoy-tcp4")
	}
}

// TestPodsPartial: what is wrong with one pod is said of it, and holds up nobody.
func TestPodsPartial(t *testing.T) {
	for what, tc := range map[string]struct {
		spoil  func(f *fixture, s *fakeNamespace)
		reason string
		mend   func(f *fixture, s *fakeNamespace)
	}{
		"no namespace": {
			func(_ *fixture, s *fakeNamespace) { s.gone = true }, "no network namespace of the pod found",
			func(_ *fixture, s *fakeNamespace) { s.gone = false },
		},
		"no listener": {
			func(f *fixture, s *fakeNamespace) { f.unanswered[s.Path()] = redirecttest.ErrRefused }, "no answer by Envoy's listener in the pod: refused by the test",
			func(f *fixture, _ *fakeNamespace) { clear(f.unanswered) },
		},
		"own rule": {
			func(f *fixture, s *fakeNamespace) {
				f.must(s.Tables[0].Restore(f.t.Context(), "*nat\n-A OUTPUT -j ACCEPT\nCOMMIT\n"))
			}, "nat rules of its own: ipv4 nft nat: -A OUTPUT -j ACCEPT",
			func(f *fixture, s *fakeNamespace) {
				f.must(s.Tables[0].Restore(f.t.Context(), "*nat\n-F OUTPUT\nCOMMIT\n"))
			},
		},
		"own rule of the other backend": {
			func(f *fixture, s *fakeNamespace) {
				f.must(s.Tables[2].Restore(f.t.Context(), "*nat\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -p tcp -j ISTIO_OUTPUT\nCOMMIT\n"))
			}, "nat rules of its own: ipv4 legacy nat: -A OUTPUT -p tcp -j ISTIO_OUTPUT",
			func(f *fixture, s *fakeNamespace) {
				f.must(s.Tables[2].Restore(f.t.Context(), "*nat\n-F OUTPUT\nCOMMIT\n"))
			},
		},
		"native nft rule": {
			func(_ *fixture, s *fakeNamespace) { s.Tables[0].Natives = []string{"inet mine out"} }, "nft chain inet mine out",
			func(_ *fixture, s *fakeNamespace) { s.Tables[0].Natives = nil },
		},
		"refused rules": {
			func(_ *fixture, s *fakeNamespace) {
				s.Hook = func(*iptables.Fake, string) error { return redirecttest.ErrRefused }
			}, "refused by the test",
			func(_ *fixture, s *fakeNamespace) { s.Hook = nil },
		},
	} {
		t.Run(what, func(t *testing.T) {
			f, n, namespaces := three(t)
			tc.spoil(f, namespaces[1])
			p := f.pods()
			err := f.round(p, n)
			if !errors.Is(err, ErrPartial) || !strings.Contains(err.Error(), "a/10.1.0.3") {
				t.Errorf("error %v, want ErrPartial that names the pod", err)
			}
			if s := p.Report()["a/10.1.0.3"]; s.Redirecting || !strings.Contains(s.Reason, tc.reason) {
				t.Errorf("report %+v, want the reason %q", s, tc.reason)
			}
			if namespaces[1].Sets.Exists("nodevoy-pods4") {
				namespaces[1].Holds("nodevoy-pods4")
			}
			namespaces[0].Holds("nodevoy-pods4", "10.1.0.2")
			namespaces[2].Holds("nodevoy-pods4", "10.1.0.4")
			if !p.Engaged() {
				t.Error("the others are not engaged")
			}
			tc.mend(f, namespaces[1])
			if changed := p.Relocate(t.Context(), f.plan(n)); changed != (what == "no namespace") {
				t.Errorf("Relocate says changed: %v", changed)
			}
			if p.Pending() && what != "no namespace" {
				t.Error("pending without a pause")
			}
			f.pass()
			if !p.Pending() {
				t.Error("not pending")
			}
			f.must(p.Apply(t.Context(), f.plan(n)))
			namespaces[1].Holds("nodevoy-pods4", "10.1.0.3")
			if s := p.Report()["a/10.1.0.3"]; !s.Redirecting || s.Reason != "" {
				t.Errorf("report after the repair: %+v", s)
			}
		})
	}
}

// TestPodsAllFail: when no pod is redirected it is no trouble of one pod's.
func TestPodsAllFail(t *testing.T) {
	f, n, namespaces := three(t)
	for _, s := range namespaces {
		f.unanswered[s.Path()] = redirecttest.ErrRefused
	}
	p := f.pods()
	if err := f.round(p, n); err == nil || errors.Is(err, ErrPartial) || !errors.Is(err, ErrUnanswered) {
		t.Errorf("error %v, want ErrUnanswered and not ErrPartial", err)
	}
	if p.Engaged() {
		t.Error("engaged")
	}
	f.cfg.Backend = netfilter.AutoBackend
	if err := f.round(f.pods(), n); err == nil || !strings.Contains(err.Error(), "backend") {
		t.Errorf("Apply without a backend: %v", err)
	}
}

// TestPodsNone: a node without enrolled pods is as well as any other.
func TestPodsNone(t *testing.T) {
	f := newFixture(t)
	p := f.applied(redirecttest.Node(t, nil))
	f.must(p.Ask(t.Context()))
	f.must(p.Refresh(t.Context()))
	if !p.Engaged() || len(p.Report()) > 0 || p.Pending() {
		t.Error("not engaged, or pods out of nowhere")
	}
}

// TestPodUnenrolled: a pod that is opted out stops being redirected at once, loses
// what is ours but keeps its listeners, until it is released or gone.
func TestPodUnenrolled(t *testing.T) {
	f, n, namespaces := three(t)
	clean := namespaces[2].Dump()
	p := f.applied(n)
	out := f.plan(withoutPods(n, true, 2))
	f.must(p.Prepare(t.Context(), out))
	f.must(p.Withdraw(t.Context(), out))
	namespaces[2].Holds("nodevoy-pods4")
	namespaces[2].Holds("nodevoy-pods6")
	f.must(p.Apply(t.Context(), out))
	if d := cmp.Diff(rested(clean, "ipv4", "ipv6"), namespaces[2].Dump()); d != "" {
		t.Errorf("left in the pod (-before +after):\n%s", d)
	}
	if targets := p.Targets(); len(targets) != 3 || !targets[2].V6 {
		t.Errorf("targets %v, want the pod's to stay as it is", targets)
	}
	if s := p.Report()["a/10.1.0.4"]; s.Redirecting || !strings.Contains(s.Reason, "not enrolled any more") {
		t.Errorf("report %+v", s)
	}
	f.must(p.Refresh(t.Context()))
	// Back in.
	f.apply(p, n)
	namespaces[2].Holds("nodevoy-pods6", "fd01::4")
	// Out, and gone.
	f.apply(p, withoutPods(n, true, 2))
	f.apply(p, withoutPods(n, false, 2))
	if targets := p.Targets(); len(targets) != 2 || namespaces[2].open != 0 || !slices.Equal(f.released, []string{"a/10.1.0.4"}) {
		t.Errorf("targets %v, %d sockets open, released %v", targets, namespaces[2].open, f.released)
	}
	if _, there := p.Report()["a/10.1.0.4"]; there {
		t.Error("a report of a pod that is gone")
	}
}

// TestPodsKeepWhatIsUnknown: a namespace that can't be looked at stays a target, and
// goes on being redirected; the report says why that isn't sure.
func TestPodsKeepWhatIsUnknown(t *testing.T) {
	f, n, namespaces := three(t)
	p := f.applied(n)
	before := p.Targets()
	f.change(func() { namespaces[0].unknown = fmt.Errorf("%w: too many open files", netns.ErrUnknown) })
	if err := f.round(p, n); !errors.Is(err, ErrPartial) || !errors.Is(err, netns.ErrUnknown) {
		t.Errorf("error %v, want ErrPartial and ErrUnknown", err)
	}
	if d := cmp.Diff(before, p.Targets()); d != "" {
		t.Errorf("targets (-before +after):\n%s", d)
	}
	namespaces[0].Holds("nodevoy-pods4", "10.1.0.2")
	state := p.Report()[before[0].UID]
	if !state.Redirecting || !strings.Contains(state.Reason, "too many open files") {
		t.Errorf("report %+v", state)
	}
	f.change(func() { namespaces[0].unknown = nil })
	f.must(f.round(p, n))
	if state := p.Report()[before[0].UID]; state.Reason != "" {
		t.Errorf("report %+v", state)
	}
}

// TestPodsTellOfAllPods: the finder knows all pods of the node, enrolled or not.
func TestPodsTellOfAllPods(t *testing.T) {
	f, n, _ := three(t)
	n.Pods[1].Enrolled = false
	n.Pods = append(n.Pods, model.Pod{Namespace: "b", Name: "host", UID: "b0"})
	f.applied(n)
	var got []string
	for _, w := range f.asked {
		got = append(got, fmt.Sprint(w.Name, " ", w.IPs, " ", w.ExcludeOnly))
	}
	want := []string{"a/10.1.0.2 [10.1.0.2] false", "a/10.1.0.3 [10.1.0.3] true", "a/10.1.0.4 [10.1.0.4 fd01::4] false"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("pods (-want +got):\n%s", d)
	}
}
