// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
)

var errRefused = errors.New("refused by the test")

func TestApply(t *testing.T) {
	for _, m := range []Mechanism{DNAT, TPROXY} {
		b := newBench(t)
		b.cfg.Mechanism = m
		n := node(t, []string{"http 10.96.0.1:80", "tcp 10.96.0.2:5432", "detect 10.96.0.3:9", "http [fd96::1]:80"}, "10.1.0.2", "fd01::2")
		a := b.applied(n)
		if !a.Engaged() {
			t.Error("not engaged after Apply")
		}
		b.holds("nodevoy-http4", "10.96.0.1,tcp:80")
		b.holds("nodevoy-tcp4", "10.96.0.2,tcp:5432")
		b.holds("nodevoy-detect4", "10.96.0.3,tcp:9")
		b.holds("nodevoy-http6", "fd96::1,tcp:80")
		b.holds("nodevoy-pods4", "10.1.0.2")
		b.holds("nodevoy-pods6", "fd01::2")
		for _, f := range b.plan(n).Families {
			for _, c := range f.Chains {
				if got := b.rules(iptables.NFT, f.Family, c.Table, c.Name); !slices.Equal(got, c.lines()) {
					t.Errorf("%s %s %s: %q", f.Family, c.Table, c.Name, got)
				}
			}
		}
		before := b.dump()
		b.must(a.Apply(t.Context(), b.plan(n)))
		b.must(b.agent().Apply(t.Context(), b.plan(n)))
		if after := b.dump(); after != before {
			t.Errorf("%s: applied again, by the same agent and by a new one:\n%s\nbefore:\n%s", m, after, before)
		}
		found, err := a.Drift(t.Context(), b.plan(n))
		b.must(err)
		if len(found) > 0 {
			t.Errorf("%s: drift right after Apply: %v", m, found)
		}
	}
}

// TestPodsLast shows that nothing is redirected before all else holds: whatever
// step of rules fails, the pods' set stays empty.
func TestPodsLast(t *testing.T) {
	for _, step := range []string{":NODEVOY-PREROUTING", "-I PREROUTING", "-I INPUT"} {
		b := newBench(t)
		b.hook = func(_ *iptables.Fake, text string) error {
			if strings.Contains(text, step) {
				return errRefused
			}
			return nil
		}
		a := b.agent()
		n := node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
		if err := a.Apply(t.Context(), b.plan(n)); !errors.Is(err, errRefused) {
			t.Errorf("%s: %v, want the refusal", step, err)
		}
		b.holds("nodevoy-pods4")
		if a.Engaged() {
			t.Errorf("%s: engaged", step)
		}
		if step == ":NODEVOY-PREROUTING" && len(b.rules(iptables.NFT, family.V4, "nat", "PREROUTING")) > 0 {
			t.Error("the jump is there before its chain")
		}
		// The next Apply makes good.
		b.hook = nil
		b.must(a.Apply(t.Context(), b.plan(n)))
		b.holds("nodevoy-pods4", "10.1.0.2")
	}
}

func TestIPv6FailureLeavesIPv4(t *testing.T) {
	b := newBench(t)
	b.hook = func(fake *iptables.Fake, _ string) error {
		if fake.Family() == family.V6 {
			return errRefused
		}
		return nil
	}
	a := b.agent()
	err := a.Apply(t.Context(), b.plan(node(t, []string{"http 10.96.0.1:80", "http [fd96::1]:80"}, "10.1.0.2", "fd01::2")))
	if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "ipv6") {
		t.Errorf("error %v, want one that names ipv6", err)
	}
	b.holds("nodevoy-pods4", "10.1.0.2")
	b.holds("nodevoy-pods6")
	if !a.Engaged() {
		t.Error("IPv4 is not engaged")
	}
}

func TestChanges(t *testing.T) {
	b := newBench(t)
	a := b.applied(node(t, []string{"http 10.96.0.1:80", "detect 10.96.0.2:80"}, "10.1.0.2", "10.1.0.3"))
	// A frontend goes, one comes, one changes its class; so do pods.
	next := b.plan(node(t, []string{"http 10.96.0.2:80", "tcp 10.96.0.3:80"}, "10.1.0.3", "10.1.0.4"))
	b.must(a.Withdraw(t.Context(), next))
	b.holds("nodevoy-http4")
	b.holds("nodevoy-detect4")
	b.holds("nodevoy-tcp4")
	b.holds("nodevoy-pods4", "10.1.0.3")
	b.must(a.Apply(t.Context(), next))
	b.holds("nodevoy-http4", "10.96.0.2,tcp:80")
	b.holds("nodevoy-tcp4", "10.96.0.3,tcp:80")
	b.holds("nodevoy-pods4", "10.1.0.3", "10.1.0.4")
}

// TestWithdrawByNewAgent: what an earlier agent left in the sets goes, what the
// plan still has stays, and nothing is made.
func TestWithdrawByNewAgent(t *testing.T) {
	b := newBench(t)
	plan := b.plan(node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2"))
	b.must(b.agent().Withdraw(t.Context(), plan))
	if names, _ := b.sets.Names(); len(names) > 0 {
		t.Errorf("Withdraw made sets %v", names)
	}
	b.applied(node(t, []string{"http 10.96.0.1:80", "http 10.96.0.9:80"}, "10.1.0.2", "10.1.0.9"))
	b.must(b.agent().Withdraw(t.Context(), plan))
	b.holds("nodevoy-http4", "10.96.0.1,tcp:80")
	b.holds("nodevoy-pods4", "10.1.0.2")
}

func TestRelease(t *testing.T) {
	b := newBench(t)
	plan := b.plan(node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2", "fd01::2"))
	a := b.agent()
	b.must(a.Release()) // before there is anything
	b.must(a.Apply(t.Context(), plan))
	b.must(a.Release())
	b.holds("nodevoy-pods4")
	b.holds("nodevoy-pods6")
	if a.Engaged() {
		t.Error("engaged after Release")
	}
	if err := a.Refresh(t.Context()); !errors.Is(err, ErrReleased) {
		t.Errorf("Refresh after Release: %v, want ErrReleased", err)
	}
	b.holds("nodevoy-pods4")
	b.holds("nodevoy-http4", "10.96.0.1,tcp:80")
	b.must(a.Apply(t.Context(), plan))
	b.holds("nodevoy-pods4", "10.1.0.2")
}

func TestReleaseDuringApply(t *testing.T) {
	b := newBench(t)
	a := b.agent()
	b.hook = func(*iptables.Fake, string) error { return a.Release() }
	err := a.Apply(t.Context(), b.plan(node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")))
	if !errors.Is(err, ErrReleased) {
		t.Errorf("Apply: %v, want ErrReleased", err)
	}
	b.holds("nodevoy-pods4")
	if a.Engaged() {
		t.Error("engaged")
	}
}

func TestRefresh(t *testing.T) {
	b := newBench(t)
	a := b.applied(node(t, nil, "10.1.0.2", "fd01::2"))
	for range 5 {
		b.now = b.now.Add(20 * time.Second)
		b.must(a.Refresh(t.Context()))
	}
	b.holds("nodevoy-pods4", "10.1.0.2")
	b.holds("nodevoy-pods6", "fd01::2")
	// A pod that was withdrawn isn't renewed.
	b.must(a.Withdraw(t.Context(), b.plan(node(t, nil, "fd01::2"))))
	b.must(a.Refresh(t.Context()))
	b.holds("nodevoy-pods4")
	b.now = b.now.Add(30 * time.Second)
	b.holds("nodevoy-pods6")
}

func TestSetsOfAnotherVersion(t *testing.T) {
	n := node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
	for what, tc := range map[string]struct {
		old ipset.Spec
		was []ipset.Member
	}{
		"smaller":      {ipset.Spec{Name: "nodevoy-http4", Type: ipset.HashIPPort, Family: family.V4, MaxElements: 65536}, []ipset.Member{netip.MustParseAddrPort("10.96.0.9:80")}},
		"other type":   {ipset.Spec{Name: "nodevoy-http4", Type: ipset.HashIP, Family: family.V4, MaxElements: 65536}, nil},
		"other family": {ipset.Spec{Name: "nodevoy-http4", Type: ipset.HashIPPort, Family: family.V6, MaxElements: 65536}, nil},
		"slower":       {ipset.Spec{Name: "nodevoy-pods4", Type: ipset.HashIP, Family: family.V4, Timeout: time.Hour, MaxElements: maxMembers}, nil},
	} {
		b := newBench(t)
		b.must(b.sets.Create(tc.old))
		b.must(b.sets.Add(tc.old, tc.was))
		a := b.applied(n)
		// Rules are in use of the set now; the next agent wants another again.
		b.holds("nodevoy-http4", "10.96.0.1,tcp:80")
		b.holds("nodevoy-pods4", "10.1.0.2")
		if names, _ := b.sets.Names(); slices.Contains(names, scratchSet(tc.old.Name)) {
			t.Errorf("%s: the scratch set is still there", what)
		}
		found, err := a.Drift(t.Context(), b.plan(n))
		b.must(err)
		if len(found) > 0 {
			t.Errorf("%s: %v", what, found)
		}
	}
}

// TestMismatchUnderRules: a set of another type that our rules hold on to.
func TestMismatchUnderRules(t *testing.T) {
	b := newBench(t)
	n := node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
	b.applied(n)
	b.must(b.agent().removeHooks(t.Context(), b.kernel().Tables[0], nil))
	b.must(b.sets.Destroy("nodevoy-http4"))
	b.must(b.sets.Create(ipset.Spec{Name: "nodevoy-http4", Type: ipset.HashIP, Family: family.V4, MaxElements: 9}))
	b.must(b.kernel().Tables[0].Restore(t.Context(), "*nat\n:NODEVOY-PREROUTING - [0:0]\n-A NODEVOY-PREROUTING -m set --match-set nodevoy-http4 src -j RETURN\n-I PREROUTING 1 -j NODEVOY-PREROUTING\nCOMMIT\n"))
	b.applied(n)
	b.holds("nodevoy-http4", "10.96.0.1,tcp:80")
	b.holds("nodevoy-pods4", "10.1.0.2")
}

// TestOtherConfiguration: chains of another mechanism or backend go, once.
func TestOtherConfiguration(t *testing.T) {
	b := newBench(t)
	n := node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
	b.applied(n)
	for _, next := range []struct {
		mechanism Mechanism
		backend   iptables.Backend
		families  []family.Family
	}{
		{TPROXY, iptables.NFT, family.All()},
		{TPROXY, iptables.Legacy, family.All()},
		{DNAT, iptables.Legacy, []family.Family{family.V4}},
	} {
		b.cfg.Mechanism, b.cfg.Backend, b.cfg.Families = next.mechanism, next.backend, next.families
		plan := b.plan(n)
		a := b.applied(n)
		for _, fake := range b.tables {
			for _, h := range hooks() {
				_, err := fake.List(t.Context(), h.Table, h.Chain)
				want := fake.Backend() == next.backend && plan.has(fake.Family(), h)
				if (err == nil) != want {
					t.Errorf("%s %s: %s %s chain %s in %s there: %v, want %v", next.mechanism, next.backend, fake.Backend(), fake.Family(), h.Chain, h.Table, err == nil, want)
				}
			}
		}
		has, err := b.network.HasRule(b.cfg.routing(family.V4))
		b.must(err)
		if has != (next.mechanism == TPROXY) {
			t.Errorf("%s: routing rule there: %v", next.mechanism, has)
		}
		b.holds("nodevoy-pods4", "10.1.0.2")
		found, err := a.Drift(t.Context(), plan)
		b.must(err)
		if len(found) > 0 {
			t.Errorf("%s: %v", next.mechanism, found)
		}
	}
}

func TestApplyNeedsDecisions(t *testing.T) {
	b := newBench(t)
	b.cfg.Backend = iptables.AutoBackend
	if err := b.agent().Apply(t.Context(), b.plan(node(t, nil))); err == nil || !strings.Contains(err.Error(), "backend") {
		t.Errorf("Apply without a backend: %v", err)
	}
	b = newBench(t)
	b.cfg.Mechanism = TPROXY
	b.network.BridgePort = "veth7"
	if err := b.agent().Apply(t.Context(), b.plan(node(t, nil))); !errors.Is(err, errBridged) || !strings.Contains(err.Error(), "veth7") {
		t.Errorf("Apply of tproxy behind a bridge: %v", err)
	}
}

func TestCleanup(t *testing.T) {
	b := newBench(t)
	foreign := "*nat\n:FOREIGN - [0:0]\n-A PREROUTING -j FOREIGN\nCOMMIT\n"
	for _, fake := range b.tables {
		b.must(fake.Restore(t.Context(), foreign))
	}
	b.must(b.sets.Create(ipset.Spec{Name: "foreign", Type: ipset.HashIP, Family: family.V4, MaxElements: 1}))
	before := b.dump()
	n := node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2", "fd01::2")
	for _, m := range []Mechanism{DNAT, TPROXY} {
		for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
			b.cfg.Mechanism, b.cfg.Backend = m, backend
			b.applied(n)
			// By an agent that knows neither mechanism nor backend.
			b.cfg.Mechanism, b.cfg.Backend = AutoMechanism, iptables.AutoBackend
			for range 2 {
				b.must(b.agent().Cleanup(t.Context()))
			}
			if after := b.dump(); after != before {
				t.Errorf("%s %s: after Cleanup:\n%s\nbefore:\n%s", m, backend, after, before)
			}
		}
	}
}

func TestCleanupGoesOn(t *testing.T) {
	b := newBench(t)
	a := b.applied(node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2"))
	b.hook = func(fake *iptables.Fake, _ string) error {
		if fake.Family() == family.V6 {
			return errRefused
		}
		return nil
	}
	ctx, cancel := contextOfTest(t)
	defer cancel()
	if err := a.Cleanup(ctx); !errors.Is(err, errRefused) {
		t.Errorf("error %v, want the refusal", err)
	}
	if rules := b.rules(iptables.NFT, family.V4, "nat", chainPrerouting); rules != nil {
		t.Errorf("IPv4 chain is still there: %q", rules)
	}
	if b.sets.Exists("nodevoy-http4") {
		t.Error("IPv4 set is still there")
	}
}

func TestFullSet(t *testing.T) {
	b := newBench(t)
	n := node(t, []string{"http 10.96.0.1:80", "http 10.96.0.2:80"}, "10.1.0.2")
	plan := b.plan(n)
	plan.Families[0].Frontends[0].MaxElements = 1
	err := b.agent().Apply(t.Context(), plan)
	if !errors.Is(err, ipset.ErrFull) || !strings.Contains(err.Error(), "2 members, room for 1") || !strings.Contains(err.Error(), "nodevoy-http4") {
		t.Errorf("error %v, want one that names the set, its members and its room", err)
	}
	b.holds("nodevoy-pods4")
}
