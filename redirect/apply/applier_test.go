// SPDX-License-Identifier: Apache-2.0

package apply_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

func TestApply(t *testing.T) {
	for _, m := range []plan.Mechanism{plan.DNAT, plan.TPROXY} {
		b := redirecttest.New(t)
		b.Cfg.Mechanism = m
		n := redirecttest.Node(t, []string{"http 10.96.0.1:80", "tcp 10.96.0.2:5432", "detect 10.96.0.3:9", "http [fd96::1]:80"}, "10.1.0.2", "fd01::2")
		a := b.Applied(n)
		if !a.Engaged() {
			t.Error("not engaged after Apply")
		}
		b.Holds("nodevoy-http4", "10.96.0.1,tcp:80")
		b.Holds("nodevoy-tcp4", "10.96.0.2,tcp:5432")
		b.Holds("nodevoy-detect4", "10.96.0.3,tcp:9")
		b.Holds("nodevoy-http6", "fd96::1,tcp:80")
		b.Holds("nodevoy-pods4", "10.1.0.2")
		b.Holds("nodevoy-pods6", "fd01::2")
		for _, f := range b.Plan(n).Families {
			for _, c := range f.Chains {
				if got := b.Rules(netfilter.NFT, f.Family, c.Table, c.Name); !slices.Equal(got, c.Lines()) {
					t.Errorf("%s %s %s: %q", f.Family, c.Table, c.Name, got)
				}
			}
		}
		before := b.Dump()
		b.Must(a.Apply(t.Context(), b.Plan(n)))
		b.Must(b.Applier().Apply(t.Context(), b.Plan(n)))
		if after := b.Dump(); after != before {
			t.Errorf("%s: applied again, by the same agent and by a new one:\n%s\nbefore:\n%s", m, after, before)
		}
		found, err := a.Drift(t.Context(), b.Plan(n))
		b.Must(err)
		if len(found) > 0 {
			t.Errorf("%s: drift right after Apply: %v", m, found)
		}
	}
}

// TestPodsLast shows that nothing is redirected before all else holds: whatever
// step of rules fails, the pods' set stays empty.
func TestPodsLast(t *testing.T) {
	for _, step := range []string{":NODEVOY-PREROUTING", "-I PREROUTING", "-I INPUT"} {
		b := redirecttest.New(t)
		b.Hook = func(_ *iptables.Fake, text string) error {
			if strings.Contains(text, step) {
				return redirecttest.ErrRefused
			}
			return nil
		}
		a := b.Applier()
		n := redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
		if err := a.Apply(t.Context(), b.Plan(n)); !errors.Is(err, redirecttest.ErrRefused) {
			t.Errorf("%s: %v, want the refusal", step, err)
		}
		b.Holds("nodevoy-pods4")
		if a.Engaged() {
			t.Errorf("%s: engaged", step)
		}
		if step == ":NODEVOY-PREROUTING" && len(b.Rules(netfilter.NFT, family.V4, "nat", "PREROUTING")) > 0 {
			t.Error("the jump is there before its chain")
		}
		// The next Apply makes good.
		b.Hook = nil
		b.Must(a.Apply(t.Context(), b.Plan(n)))
		b.Holds("nodevoy-pods4", "10.1.0.2")
	}
}

func TestIPv6FailureLeavesIPv4(t *testing.T) {
	b := redirecttest.New(t)
	b.Hook = func(fake *iptables.Fake, _ string) error {
		if fake.Family() == family.V6 {
			return redirecttest.ErrRefused
		}
		return nil
	}
	a := b.Applier()
	err := a.Apply(t.Context(), b.Plan(redirecttest.Node(t, []string{"http 10.96.0.1:80", "http [fd96::1]:80"}, "10.1.0.2", "fd01::2")))
	if !errors.Is(err, redirecttest.ErrRefused) || !strings.Contains(err.Error(), "ipv6") {
		t.Errorf("error %v, want one that names ipv6", err)
	}
	b.Holds("nodevoy-pods4", "10.1.0.2")
	b.Holds("nodevoy-pods6")
	if !a.Engaged() {
		t.Error("IPv4 is not engaged")
	}
}

func TestChanges(t *testing.T) {
	b := redirecttest.New(t)
	a := b.Applied(redirecttest.Node(t, []string{"http 10.96.0.1:80", "detect 10.96.0.2:80"}, "10.1.0.2", "10.1.0.3"))
	// A frontend goes, one comes, one changes its class; so do pods.
	next := b.Plan(redirecttest.Node(t, []string{"http 10.96.0.2:80", "tcp 10.96.0.3:80"}, "10.1.0.3", "10.1.0.4"))
	b.Must(a.Withdraw(t.Context(), next))
	b.Holds("nodevoy-http4")
	b.Holds("nodevoy-detect4")
	b.Holds("nodevoy-tcp4")
	b.Holds("nodevoy-pods4", "10.1.0.3")
	b.Must(a.Apply(t.Context(), next))
	b.Holds("nodevoy-http4", "10.96.0.2,tcp:80")
	b.Holds("nodevoy-tcp4", "10.96.0.3,tcp:80")
	b.Holds("nodevoy-pods4", "10.1.0.3", "10.1.0.4")
}

// TestWithdrawByNewAgent: what an earlier agent left in the sets goes, what the
// plan still has stays, and nothing is made.
func TestWithdrawByNewAgent(t *testing.T) {
	b := redirecttest.New(t)
	desired := b.Plan(redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2"))
	b.Must(b.Applier().Withdraw(t.Context(), desired))
	if names, _ := b.Sets.Names(); len(names) > 0 {
		t.Errorf("Withdraw made sets %v", names)
	}
	b.Applied(redirecttest.Node(t, []string{"http 10.96.0.1:80", "http 10.96.0.9:80"}, "10.1.0.2", "10.1.0.9"))
	b.Must(b.Applier().Withdraw(t.Context(), desired))
	b.Holds("nodevoy-http4", "10.96.0.1,tcp:80")
	b.Holds("nodevoy-pods4", "10.1.0.2")
}

func TestRelease(t *testing.T) {
	b := redirecttest.New(t)
	desired := b.Plan(redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2", "fd01::2"))
	a := b.Applier()
	b.Must(a.Disengage()) // before there is anything
	b.Must(a.Apply(t.Context(), desired))
	b.Must(a.Disengage())
	b.Holds("nodevoy-pods4")
	b.Holds("nodevoy-pods6")
	if a.Engaged() {
		t.Error("engaged after Release")
	}
	if err := a.Refresh(t.Context()); !errors.Is(err, apply.ErrDisengaged) {
		t.Errorf("Refresh after Release: %v, want ErrReleased", err)
	}
	b.Holds("nodevoy-pods4")
	b.Holds("nodevoy-http4", "10.96.0.1,tcp:80")
	b.Must(a.Apply(t.Context(), desired))
	b.Holds("nodevoy-pods4", "10.1.0.2")
}

func TestReleaseDuringApply(t *testing.T) {
	b := redirecttest.New(t)
	a := b.Applier()
	b.Hook = func(*iptables.Fake, string) error { return a.Disengage() }
	err := a.Apply(t.Context(), b.Plan(redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")))
	if !errors.Is(err, apply.ErrDisengaged) {
		t.Errorf("Apply: %v, want ErrReleased", err)
	}
	b.Holds("nodevoy-pods4")
	if a.Engaged() {
		t.Error("engaged")
	}
}

func TestRefresh(t *testing.T) {
	b := redirecttest.New(t)
	a := b.Applied(redirecttest.Node(t, nil, "10.1.0.2", "fd01::2"))
	for range 5 {
		b.Now = b.Now.Add(20 * time.Second)
		b.Must(a.Refresh(t.Context()))
	}
	b.Holds("nodevoy-pods4", "10.1.0.2")
	b.Holds("nodevoy-pods6", "fd01::2")
	// A pod that was withdrawn isn't renewed.
	b.Must(a.Withdraw(t.Context(), b.Plan(redirecttest.Node(t, nil, "fd01::2"))))
	b.Must(a.Refresh(t.Context()))
	b.Holds("nodevoy-pods4")
	b.Now = b.Now.Add(30 * time.Second)
	b.Holds("nodevoy-pods6")
}

func TestSetsOfAnotherVersion(t *testing.T) {
	n := redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
	for what, tc := range map[string]struct {
		old netfilter.SetSpec
		was []netfilter.Member
	}{
		"smaller":      {netfilter.SetSpec{Name: "nodevoy-http4", Type: netfilter.HashIPPort, Family: family.V4, MaxElements: 65536}, []netfilter.Member{netip.MustParseAddrPort("10.96.0.9:80")}},
		"other type":   {netfilter.SetSpec{Name: "nodevoy-http4", Type: netfilter.HashIP, Family: family.V4, MaxElements: 65536}, nil},
		"other family": {netfilter.SetSpec{Name: "nodevoy-http4", Type: netfilter.HashIPPort, Family: family.V6, MaxElements: 65536}, nil},
		"slower":       {netfilter.SetSpec{Name: "nodevoy-pods4", Type: netfilter.HashIP, Family: family.V4, Timeout: time.Hour, MaxElements: plan.MaxMembers}, nil},
	} {
		b := redirecttest.New(t)
		b.Must(b.Sets.Create(tc.old))
		b.Must(b.Sets.Add(tc.old, tc.was))
		a := b.Applied(n)
		// Rules are in use of the set now; the next agent wants another again.
		b.Holds("nodevoy-http4", "10.96.0.1,tcp:80")
		b.Holds("nodevoy-pods4", "10.1.0.2")
		if names, _ := b.Sets.Names(); slices.Contains(names, plan.ScratchSet(tc.old.Name)) {
			t.Errorf("%s: the scratch set is still there", what)
		}
		found, err := a.Drift(t.Context(), b.Plan(n))
		b.Must(err)
		if len(found) > 0 {
			t.Errorf("%s: %v", what, found)
		}
	}
}

// TestMismatchUnderRules: a set of another type that our rules hold on to.
func TestMismatchUnderRules(t *testing.T) {
	b := redirecttest.New(t)
	n := redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
	b.Applied(n)
	b.Must(apply.RemoveHooks(t.Context(), b.Applier(), b.Kernel().Tables[0]))
	b.Must(b.Sets.Destroy("nodevoy-http4"))
	b.Must(b.Sets.Create(netfilter.SetSpec{Name: "nodevoy-http4", Type: netfilter.HashIP, Family: family.V4, MaxElements: 9}))
	b.Must(b.Kernel().Tables[0].Restore(t.Context(), "*nat\n:NODEVOY-PREROUTING - [0:0]\n-A NODEVOY-PREROUTING -m set --match-set nodevoy-http4 src -j RETURN\n-I PREROUTING 1 -j NODEVOY-PREROUTING\nCOMMIT\n"))
	b.Applied(n)
	b.Holds("nodevoy-http4", "10.96.0.1,tcp:80")
	b.Holds("nodevoy-pods4", "10.1.0.2")
}

// TestRulesRemovedMeanwhile: when Apply takes its own rules away, to make a set of
// another type, and can't put them back, then the family is disengaged: Refresh
// must not fill the set of pods again. The other family goes on.
func TestRulesRemovedMeanwhile(t *testing.T) {
	b := redirecttest.New(t)
	n := redirecttest.Node(t, []string{"http 10.96.0.1:80", "http [fd96::1]:80"}, "10.1.0.2", "fd01::2")
	a := b.Applied(n)
	b.Must(apply.RemoveHooks(t.Context(), b.Applier(), b.Kernel().Tables[0]))
	b.Must(b.Sets.Destroy("nodevoy-http4"))
	b.Must(b.Sets.Create(netfilter.SetSpec{Name: "nodevoy-http4", Type: netfilter.HashIP, Family: family.V4, MaxElements: 9}))
	b.Must(b.Kernel().Tables[0].Restore(t.Context(), "*nat\n:NODEVOY-PREROUTING - [0:0]\n-A NODEVOY-PREROUTING -m set --match-set nodevoy-http4 src -j RETURN\n-I PREROUTING 1 -j NODEVOY-PREROUTING\nCOMMIT\n"))
	a.Forget()
	b.Hook = func(_ *iptables.Fake, text string) error {
		if strings.Contains(text, "-A NODEVOY") {
			return redirecttest.ErrRefused
		}
		return nil
	}
	if err := a.Apply(t.Context(), b.Plan(n)); !errors.Is(err, redirecttest.ErrRefused) {
		t.Fatalf("Apply without its rules: %v", err)
	}
	b.Must(a.Refresh(t.Context()))
	b.Holds("nodevoy-pods4")
	b.Holds("nodevoy-pods6", "fd01::2")
	b.Hook = nil
	b.Must(a.Apply(t.Context(), b.Plan(n)))
	b.Holds("nodevoy-pods4", "10.1.0.2")
}

// TestOtherConfiguration: chains of another mechanism or backend go, once.
func TestOtherConfiguration(t *testing.T) {
	b := redirecttest.New(t)
	n := redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
	b.Applied(n)
	for _, next := range []struct {
		mechanism plan.Mechanism
		backend   netfilter.Backend
		families  []family.Family
	}{
		{plan.TPROXY, netfilter.NFT, family.All()},
		{plan.TPROXY, netfilter.Legacy, family.All()},
		{plan.DNAT, netfilter.Legacy, []family.Family{family.V4}},
	} {
		b.Cfg.Mechanism, b.Cfg.Backend, b.Cfg.Families = next.mechanism, next.backend, next.families
		desired := b.Plan(n)
		a := b.Applied(n)
		for _, fake := range b.Tables {
			for _, h := range plan.Hooks() {
				_, err := fake.List(t.Context(), h.Table, h.Chain)
				want := fake.Backend() == next.backend && desired.HasChain(fake.Family(), h)
				if (err == nil) != want {
					t.Errorf("%s %s: %s %s chain %s in %s there: %v, want %v", next.mechanism, next.backend, fake.Backend(), fake.Family(), h.Chain, h.Table, err == nil, want)
				}
			}
		}
		has, err := b.Network.HasRule(b.Cfg.PolicyRule(family.V4))
		b.Must(err)
		if has != (next.mechanism == plan.TPROXY) {
			t.Errorf("%s: routing rule there: %v", next.mechanism, has)
		}
		b.Holds("nodevoy-pods4", "10.1.0.2")
		found, err := a.Drift(t.Context(), desired)
		b.Must(err)
		if len(found) > 0 {
			t.Errorf("%s: %v", next.mechanism, found)
		}
	}
}

func TestApplyNeedsDecisions(t *testing.T) {
	b := redirecttest.New(t)
	b.Cfg.Backend = netfilter.AutoBackend
	if err := b.Applier().Apply(t.Context(), b.Plan(redirecttest.Node(t, nil))); err == nil || !strings.Contains(err.Error(), "backend") {
		t.Errorf("Apply without a backend: %v", err)
	}
	b = redirecttest.New(t)
	b.Cfg.Mechanism = plan.TPROXY
	b.Network.BridgePort = "veth7"
	if err := b.Applier().Apply(t.Context(), b.Plan(redirecttest.Node(t, nil))); !errors.Is(err, apply.ErrBridged) || !strings.Contains(err.Error(), "veth7") {
		t.Errorf("Apply of tproxy behind a bridge: %v", err)
	}
}

func TestCleanup(t *testing.T) {
	b := redirecttest.New(t)
	foreign := "*nat\n:FOREIGN - [0:0]\n-A PREROUTING -j FOREIGN\nCOMMIT\n"
	for _, fake := range b.Tables {
		b.Must(fake.Restore(t.Context(), foreign))
	}
	b.Must(b.Sets.Create(netfilter.SetSpec{Name: "foreign", Type: netfilter.HashIP, Family: family.V4, MaxElements: 1}))
	before := b.Dump()
	n := redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2", "fd01::2")
	for _, m := range []plan.Mechanism{plan.DNAT, plan.TPROXY} {
		for _, backend := range []netfilter.Backend{netfilter.NFT, netfilter.Legacy} {
			b.Cfg.Mechanism, b.Cfg.Backend = m, backend
			b.Applied(n)
			// By an agent that knows neither mechanism nor backend.
			b.Cfg.Mechanism, b.Cfg.Backend = plan.AutoMechanism, netfilter.AutoBackend
			for range 2 {
				b.Must(b.Applier().Cleanup(t.Context()))
			}
			if after := b.Dump(); after != before {
				t.Errorf("%s %s: after Cleanup:\n%s\nbefore:\n%s", m, backend, after, before)
			}
		}
	}
}

func TestCleanupGoesOn(t *testing.T) {
	b := redirecttest.New(t)
	a := b.Applied(redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2"))
	b.Hook = func(fake *iptables.Fake, _ string) error {
		if fake.Family() == family.V6 {
			return redirecttest.ErrRefused
		}
		return nil
	}
	ctx, cancel := redirecttest.ShortContext(t)
	defer cancel()
	if err := a.Cleanup(ctx); !errors.Is(err, redirecttest.ErrRefused) {
		t.Errorf("error %v, want the refusal", err)
	}
	if rules := b.Rules(netfilter.NFT, family.V4, "nat", plan.ChainPrerouting); rules != nil {
		t.Errorf("IPv4 chain is still there: %q", rules)
	}
	if b.Sets.Exists("nodevoy-http4") {
		t.Error("IPv4 set is still there")
	}
}

func TestFullSet(t *testing.T) {
	b := redirecttest.New(t)
	n := redirecttest.Node(t, []string{"http 10.96.0.1:80", "http 10.96.0.2:80"}, "10.1.0.2")
	desired := b.Plan(n)
	desired.Families[0].Frontends[0].MaxElements = 1
	err := b.Applier().Apply(t.Context(), desired)
	if !errors.Is(err, ipset.ErrFull) || !strings.Contains(err.Error(), "2 members, room for 1") || !strings.Contains(err.Error(), "nodevoy-http4") {
		t.Errorf("error %v, want one that names the set, its members and its room", err)
	}
	b.Holds("nodevoy-pods4")
}
