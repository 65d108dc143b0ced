// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// redirector is what the host's Applier and Pods have in common.
type redirector interface {
	Prepare(ctx context.Context, desired *plan.Plan) error
	Withdraw(ctx context.Context, desired *plan.Plan) error
	Apply(ctx context.Context, desired *plan.Plan) error
	Disengage() error
	Refresh(ctx context.Context) error
	Drift(ctx context.Context, desired *plan.Plan) ([]apply.Drift, error)
	Engaged() bool
	Forget()
	Cleanup(ctx context.Context) error
	Close() error
}

// subject is one of both on a node with two pods, 10.1.0.2 and 10.1.0.3.
type subject struct {
	t *testing.T
	redirector
	// again is another of its kind, as after a restart.
	again func() redirector
	plan  func(*model.Node) *plan.Plan
	// kernels has that of the host, or that of each pod; chain names our chain in nat.
	kernels []*redirecttest.Fixture
	chain   string
	pass    func(time.Duration)
}

// subjects makes one of each kind.
func subjects(t *testing.T) map[string]*subject {
	t.Helper()
	b := redirecttest.New(t)
	host := &subject{
		t: t, redirector: b.Applier(), again: func() redirector { return b.Applier() },
		plan: b.Plan, kernels: []*redirecttest.Fixture{b}, chain: plan.ChainPrerouting,
		pass: func(d time.Duration) { b.Now = b.Now.Add(d) },
	}
	f := newFixture(t)
	namespaces := []*fakeNamespace{f.add("10.1.0.2"), f.add("10.1.0.3")}
	pods := &subject{
		t: t, redirector: f.pods(), again: func() redirector { return f.pods() },
		plan: f.plan, kernels: []*redirecttest.Fixture{namespaces[0].Fixture, namespaces[1].Fixture}, chain: plan.ChainOutput,
		pass: func(d time.Duration) { f.now = f.now.Add(d) },
	}
	return map[string]*subject{"host": host, "pods": pods}
}

// round is what the agent does after a change.
func (s *subject) round(n *model.Node) error {
	return errors.Join(s.Prepare(s.t.Context(), s.plan(n)), s.Withdraw(s.t.Context(), s.plan(n)), s.Apply(s.t.Context(), s.plan(n)))
}

// holds checks what all kernels together hold in a set, each member once.
func (s *subject) holds(set string, want ...string) {
	s.t.Helper()
	var got []string
	for _, b := range s.kernels {
		members, err := b.Sets.Members(set)
		if errors.Is(err, ipset.ErrNotFound) {
			continue
		}
		b.Must(err)
		for _, m := range members {
			got = append(got, plan.MemberText(map[bool]netfilter.SetType{true: netfilter.HashIP}[m.Port() == 0], m))
		}
	}
	slices.Sort(got)
	if d := cmp.Diff(want, slices.Compact(got)); d != "" && len(want)+len(got) > 0 {
		s.t.Errorf("set %s (-want +got):\n%s", set, d)
	}
}

func (s *subject) dump() string {
	var all strings.Builder
	for _, b := range s.kernels {
		all.WriteString(b.Dump())
	}
	return all.String()
}

func (s *subject) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestBehaviour: what holds of redirection wherever it is done.
func TestBehaviour(t *testing.T) {
	for what, check := range map[string]func(s *subject, n *model.Node){
		"applies, also again": func(s *subject, n *model.Node) {
			before := s.dump()
			s.must(s.round(n))
			s.must(s.again().Apply(s.t.Context(), s.plan(n)))
			s.Forget()
			s.must(s.round(n))
			if s.dump() != before || !s.Engaged() {
				s.t.Errorf("engaged %v; after applying again:\n%s", s.Engaged(), cmp.Diff(before, s.dump()))
			}
		},
		"pods come last": func(s *subject, n *model.Node) {
			s.must(s.Cleanup(s.t.Context()))
			for _, b := range s.kernels {
				b.Hook = func(*iptables.Fake, string) error { return redirecttest.ErrRefused }
			}
			if err := s.round(n); !errors.Is(err, redirecttest.ErrRefused) || s.Engaged() {
				s.t.Errorf("error %v, engaged %v", err, s.Engaged())
			}
			s.holds("nodevoy-pods4")
			for _, b := range s.kernels {
				b.Hook = nil
			}
			s.pass(firstPause)
			s.must(s.round(n))
			s.holds("nodevoy-pods4", "10.1.0.2", "10.1.0.3")
		},
		"follows changes": func(s *subject, n *model.Node) {
			n.Frontends = append(n.Frontends[1:], redirecttest.Node(s.t, []string{"http 10.96.0.9:80"}).Frontends...)
			n.Pods[0].Enrolled = false
			s.must(s.Withdraw(s.t.Context(), s.plan(n)))
			s.holds("nodevoy-pods4", "10.1.0.3")
			s.must(s.round(n))
			s.holds("nodevoy-http4", "10.96.0.9,tcp:80")
			s.holds("nodevoy-tcp4", "10.96.0.2,tcp:5432")
			s.holds("nodevoy-pods4", "10.1.0.3")
		},
		"releases": func(s *subject, n *model.Node) {
			s.must(s.Disengage())
			s.holds("nodevoy-pods4")
			if err := s.Refresh(s.t.Context()); !errors.Is(err, apply.ErrDisengaged) || s.Engaged() {
				s.t.Errorf("Refresh after Release: %v; engaged %v", err, s.Engaged())
			}
			s.holds("nodevoy-pods4")
			s.holds("nodevoy-tcp4", "10.96.0.2,tcp:5432")
			s.must(s.round(n))
			s.holds("nodevoy-pods4", "10.1.0.2", "10.1.0.3")
		},
		"releases while applying": func(s *subject, n *model.Node) {
			s.must(s.Cleanup(s.t.Context()))
			for _, b := range s.kernels {
				b.Hook = func(*iptables.Fake, string) error { return s.Disengage() }
			}
			if err := s.round(n); !errors.Is(err, apply.ErrDisengaged) || s.Engaged() {
				s.t.Errorf("error %v, engaged %v", err, s.Engaged())
			}
			s.holds("nodevoy-pods4")
		},
		"has a dead man's switch": func(s *subject, n *model.Node) {
			for range 3 {
				s.pass(20 * time.Second)
				s.must(s.Refresh(s.t.Context()))
			}
			s.holds("nodevoy-pods4", "10.1.0.2", "10.1.0.3")
			s.pass(30 * time.Second)
			s.holds("nodevoy-pods4")
			found, err := s.Drift(s.t.Context(), s.plan(n))
			s.must(err)
			if len(found) != len(s.kernels) {
				s.t.Errorf("found %v, want the pods missing", found)
			}
			s.must(s.round(n))
			s.holds("nodevoy-pods4", "10.1.0.2", "10.1.0.3")
		},
		"sees and mends what others do": func(s *subject, n *model.Node) {
			before := s.dump()
			for _, b := range s.kernels {
				s.must(b.Tables[0].Restore(s.t.Context(), "*nat\n-F "+s.chain+"\nCOMMIT\n"))
				s.must(b.Sets.Flush("nodevoy-http4"))
			}
			found, err := s.Drift(s.t.Context(), s.plan(n))
			s.must(err)
			if len(found) != 2*len(s.kernels) {
				s.t.Errorf("found %v", found)
			}
			s.must(s.round(n))
			if s.dump() != before {
				s.t.Errorf("after the repair:\n%s", cmp.Diff(before, s.dump()))
			}
		},
		"leaves nothing": func(s *subject, _ *model.Node) {
			for range 2 {
				s.must(s.again().Cleanup(s.t.Context()))
				if left := s.dump(); strings.Contains(left, "NODEVOY") || strings.Contains(left, "nodevoy") || strings.Contains(left, "169.254") {
					s.t.Errorf("left: %s", left)
				}
			}
		},
		"is handed over": func(s *subject, n *model.Node) {
			next := s.again()
			n.Pods = n.Pods[:1]
			s.must(next.Prepare(s.t.Context(), s.plan(n)))
			s.must(next.Withdraw(s.t.Context(), s.plan(n)))
			s.must(next.Apply(s.t.Context(), s.plan(n)))
			found, err := next.Drift(s.t.Context(), s.plan(n))
			s.must(err)
			if len(found) > 0 {
				s.t.Errorf("found %v", found)
			}
			s.holds("nodevoy-http4", "10.96.0.1,tcp:80")
			s.must(next.Close())
		},
	} {
		for kind, s := range subjects(t) {
			t.Run(what+"/"+kind, func(t *testing.T) {
				s.t = t
				for _, b := range s.kernels {
					b.T = t
				}
				n := redirecttest.Node(t, []string{"http 10.96.0.1:80", "tcp 10.96.0.2:5432"}, "10.1.0.2", "10.1.0.3")
				s.must(s.round(n))
				s.holds("nodevoy-pods4", "10.1.0.2", "10.1.0.3")
				check(s, n)
			})
		}
	}
}
