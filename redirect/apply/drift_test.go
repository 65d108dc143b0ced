// SPDX-License-Identifier: Apache-2.0

package apply_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// damage is one way to spoil what an agent has applied.
type damage struct {
	what   string
	do     func(b *redirecttest.Fixture) error
	want   apply.Drift
	others int
}

func damages() []damage {
	restore := func(text string) func(*redirecttest.Fixture) error {
		return func(b *redirecttest.Fixture) error { return b.Tables[0].Restore(b.T.Context(), text) }
	}
	members := func(list ...string) []netfilter.Member {
		var m []netfilter.Member
		for _, s := range list {
			m = append(m, netip.MustParseAddrPort(s))
		}
		return m
	}
	http := netfilter.SetSpec{Name: "nodevoy-http4", Type: netfilter.HashIPPort, Family: family.V4}
	pods := netfilter.SetSpec{Name: "nodevoy-pods4", Type: netfilter.HashIP, Family: family.V4}
	return []damage{
		{"jump gone", restore("*nat\n-F PREROUTING\nCOMMIT\n"), apply.Drift{apply.DriftJump, "ipv4 nat PREROUTING", "missing"}, 0},
		{"jump second", restore("*nat\n-I PREROUTING 1 -p tcp -j ACCEPT\nCOMMIT\n"), apply.Drift{apply.DriftJump, "ipv4 nat PREROUTING", "not the first rule: found -A PREROUTING -p tcp -j ACCEPT before it"}, 0},
		{"jump twice", restore("*nat\n-A PREROUTING -p tcp -j NODEVOY-PREROUTING\nCOMMIT\n"), apply.Drift{apply.DriftJump, "ipv4 nat PREROUTING", "found 2 jumps, want 1"}, 0},
		{"rule added", restore("*filter\n-A NODEVOY-INPUT -j DROP\nCOMMIT\n"), apply.Drift{apply.DriftChain, "ipv4 filter NODEVOY-INPUT", "rule 5: want nothing, found -A NODEVOY-INPUT -j DROP"}, 0},
		{"rules gone", restore("*nat\n-F NODEVOY-PREROUTING\nCOMMIT\n"), apply.Drift{apply.DriftChain, "ipv4 nat NODEVOY-PREROUTING", "rule 1: want -A NODEVOY-PREROUTING -m set ! --match-set nodevoy-pods4 src -j RETURN, found nothing"}, 0},
		{"everything gone", restore("*nat\n-F PREROUTING\n-F NODEVOY-PREROUTING\n-X NODEVOY-PREROUTING\nCOMMIT\n"), apply.Drift{apply.DriftChain, "ipv4 nat NODEVOY-PREROUTING", "missing"}, 1},
		{"address gone", func(b *redirecttest.Fixture) error { return b.Network.DeleteAddress(b.Cfg.Address4) }, apply.Drift{apply.DriftAddress, "169.254.64.15", "missing on lo"}, 0},
		{"set emptied", func(b *redirecttest.Fixture) error { return b.Sets.Flush("nodevoy-http4") }, apply.Drift{apply.DriftMembers, "nodevoy-http4", "2 missing 10.96.0.1,tcp:80 10.96.0.2,tcp:80, 0 too many"}, 0},
		{"member added", func(b *redirecttest.Fixture) error { return b.Sets.Add(http, members("10.96.0.99:1")) }, apply.Drift{apply.DriftMembers, "nodevoy-http4", "0 missing, 1 too many 10.96.0.99,tcp:1"}, 0},
		{"pod gone", func(b *redirecttest.Fixture) error { return b.Sets.Flush("nodevoy-pods4") }, apply.Drift{apply.DriftMembers, "nodevoy-pods4", "1 missing 10.1.0.2, 0 too many"}, 0},
		{"pod added", func(b *redirecttest.Fixture) error { return b.Sets.Add(pods, members("10.1.0.99:0")) }, apply.Drift{apply.DriftMembers, "nodevoy-pods4", "0 missing, 1 too many 10.1.0.99"}, 0},
		{"set gone", func(b *redirecttest.Fixture) error {
			b.Sets.References = nil
			return b.Sets.Destroy("nodevoy-tcp4")
		}, apply.Drift{apply.DriftSet, "nodevoy-tcp4", "missing"}, 0},
		{"set of another kind", func(b *redirecttest.Fixture) error {
			b.Sets.References = nil
			other := netfilter.SetSpec{Name: "nodevoy-tcp4", Type: netfilter.HashIPPort, Family: family.V4, MaxElements: 7}
			if err := b.Sets.Destroy(other.Name); err != nil {
				return err
			}
			return b.Sets.Create(other)
		}, apply.Drift{apply.DriftSet, "nodevoy-tcp4", "want create nodevoy-tcp4 hash:ip,port family inet maxelem 262144, found create nodevoy-tcp4 hash:ip,port family inet maxelem 7"}, 0},
	}
}

func TestDrift(t *testing.T) {
	for _, d := range damages() {
		t.Run(d.what, func(t *testing.T) {
			b := redirecttest.New(t)
			n := redirecttest.Node(t, []string{"http 10.96.0.1:80", "http 10.96.0.2:80", "tcp 10.96.0.3:1"}, "10.1.0.2", "fd01::2")
			a := b.Applied(n)
			before := b.Dump()
			b.Must(d.do(b))
			found, err := a.Drift(t.Context(), b.Plan(n))
			b.Must(err)
			if len(found) != 1+d.others {
				t.Errorf("found %v, want %d", found, 1+d.others)
			}
			if len(found) > 0 {
				if diff := cmp.Diff(d.want, found[0]); diff != "" {
					t.Errorf("first found (-want +got):\n%s", diff)
				}
			}
			b.Must(a.Apply(t.Context(), b.Plan(n)))
			want := before
			if d.what == "jump second" {
				// The other rule is not ours to remove.
				want = strings.Replace(before, "-A PREROUTING -p tcp -j NODEVOY-PREROUTING\n", "-A PREROUTING -p tcp -j NODEVOY-PREROUTING\n-A PREROUTING -p tcp -j ACCEPT\n", 1)
			}
			if after := b.Dump(); after != want {
				t.Errorf("after the repair:\n%s\nwant:\n%s", after, want)
			}
			again, err := a.Drift(t.Context(), b.Plan(n))
			b.Must(err)
			if len(again) > 0 {
				t.Errorf("after the repair: %v", again)
			}
		})
	}
}

func TestDriftOfRouting(t *testing.T) {
	b := redirecttest.New(t)
	b.Cfg.Mechanism = plan.TPROXY
	n := redirecttest.Node(t, nil, "10.1.0.2")
	a := b.Applied(n)
	b.Must(b.Network.DeleteRule(b.Cfg.PolicyRule(family.V6)))
	found, err := a.Drift(t.Context(), b.Plan(n))
	b.Must(err)
	if diff := cmp.Diff([]apply.Drift{{apply.DriftRouting, "ipv6 table 1064", "policy rule or route missing"}}, found); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	b.Must(a.Apply(t.Context(), b.Plan(n)))
	if has, _ := b.Network.HasRule(b.Cfg.PolicyRule(family.V6)); !has {
		t.Error("not repaired")
	}
}

// TestDriftOfEqualCount: one member for another is seen within a few checks.
func TestDriftOfEqualCount(t *testing.T) {
	b := redirecttest.New(t)
	n := redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
	a := b.Applied(n)
	http := netfilter.SetSpec{Name: "nodevoy-http4", Type: netfilter.HashIPPort, Family: family.V4}
	b.Must(b.Sets.Flush(http.Name))
	b.Must(b.Sets.Add(http, []netfilter.Member{netip.MustParseAddrPort("10.96.0.99:1")}))
	for range apply.FullCheck {
		found, err := a.Drift(t.Context(), b.Plan(n))
		b.Must(err)
		if len(found) > 0 {
			b.Must(a.Apply(t.Context(), b.Plan(n)))
			b.Holds("nodevoy-http4", "10.96.0.1,tcp:80")
			return
		}
	}
	t.Errorf("not seen in %d checks", apply.FullCheck)
}

// TestDeadMansSwitch: without Refresh pods leave by themselves, and that is
// drift for an agent that comes to again.
func TestDeadMansSwitch(t *testing.T) {
	b := redirecttest.New(t)
	n := redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
	a := b.Applied(n)
	b.Now = b.Now.Add(29 * time.Second)
	b.Holds("nodevoy-pods4", "10.1.0.2")
	b.Now = b.Now.Add(time.Second)
	b.Holds("nodevoy-pods4")
	found, err := a.Drift(t.Context(), b.Plan(n))
	b.Must(err)
	if len(found) != 1 || found[0].Kind != apply.DriftMembers {
		t.Errorf("found %v, want the pod missing", found)
	}
}
