// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
)

// damage is one way to spoil what an agent has applied.
type damage struct {
	what   string
	do     func(b *bench) error
	want   Drift
	others int
}

func damages() []damage {
	restore := func(text string) func(*bench) error {
		return func(b *bench) error { return b.tables[0].Restore(b.t.Context(), text) }
	}
	members := func(list ...string) []ipset.Member {
		var m []ipset.Member
		for _, s := range list {
			m = append(m, netip.MustParseAddrPort(s))
		}
		return m
	}
	http := ipset.Spec{Name: "nodevoy-http4", Type: ipset.HashIPPort, Family: family.V4}
	pods := ipset.Spec{Name: "nodevoy-pods4", Type: ipset.HashIP, Family: family.V4}
	return []damage{
		{"jump gone", restore("*nat\n-F PREROUTING\nCOMMIT\n"), Drift{DriftJump, "ipv4 nat PREROUTING", "missing"}, 0},
		{"jump second", restore("*nat\n-I PREROUTING 1 -p tcp -j ACCEPT\nCOMMIT\n"), Drift{DriftJump, "ipv4 nat PREROUTING", "not the first rule: found -A PREROUTING -p tcp -j ACCEPT before it"}, 0},
		{"jump twice", restore("*nat\n-A PREROUTING -p tcp -j NODEVOY-PREROUTING\nCOMMIT\n"), Drift{DriftJump, "ipv4 nat PREROUTING", "found 2 jumps, want 1"}, 0},
		{"rule added", restore("*filter\n-A NODEVOY-INPUT -j DROP\nCOMMIT\n"), Drift{DriftChain, "ipv4 filter NODEVOY-INPUT", "rule 5: want nothing, found -A NODEVOY-INPUT -j DROP"}, 0},
		{"rules gone", restore("*nat\n-F NODEVOY-PREROUTING\nCOMMIT\n"), Drift{DriftChain, "ipv4 nat NODEVOY-PREROUTING", "rule 1: want -A NODEVOY-PREROUTING -m set ! --match-set nodevoy-pods4 src -j RETURN, found nothing"}, 0},
		{"everything gone", restore("*nat\n-F PREROUTING\n-F NODEVOY-PREROUTING\n-X NODEVOY-PREROUTING\nCOMMIT\n"), Drift{DriftChain, "ipv4 nat NODEVOY-PREROUTING", "missing"}, 1},
		{"address gone", func(b *bench) error { return b.network.DeleteAddress(b.cfg.Address4) }, Drift{DriftAddress, "169.254.64.15", "missing on lo"}, 0},
		{"set emptied", func(b *bench) error { return b.sets.Flush("nodevoy-http4") }, Drift{DriftMembers, "nodevoy-http4", "2 missing 10.96.0.1,tcp:80 10.96.0.2,tcp:80, 0 too many"}, 0},
		{"member added", func(b *bench) error { return b.sets.Add(http, members("10.96.0.99:1")) }, Drift{DriftMembers, "nodevoy-http4", "0 missing, 1 too many 10.96.0.99,tcp:1"}, 0},
		{"pod gone", func(b *bench) error { return b.sets.Flush("nodevoy-pods4") }, Drift{DriftMembers, "nodevoy-pods4", "1 missing 10.1.0.2, 0 too many"}, 0},
		{"pod added", func(b *bench) error { return b.sets.Add(pods, members("10.1.0.99:0")) }, Drift{DriftMembers, "nodevoy-pods4", "0 missing, 1 too many 10.1.0.99"}, 0},
		{"set gone", func(b *bench) error {
			b.sets.References = nil
			return b.sets.Destroy("nodevoy-tcp4")
		}, Drift{DriftSet, "nodevoy-tcp4", "missing"}, 0},
		{"set of another kind", func(b *bench) error {
			b.sets.References = nil
			other := ipset.Spec{Name: "nodevoy-tcp4", Type: ipset.HashIPPort, Family: family.V4, MaxElements: 7}
			if err := b.sets.Destroy(other.Name); err != nil {
				return err
			}
			return b.sets.Create(other)
		}, Drift{DriftSet, "nodevoy-tcp4", "want create nodevoy-tcp4 hash:ip,port family inet maxelem 262144, found create nodevoy-tcp4 hash:ip,port family inet maxelem 7"}, 0},
	}
}

func TestDrift(t *testing.T) {
	for _, d := range damages() {
		t.Run(d.what, func(t *testing.T) {
			b := newBench(t)
			n := node(t, []string{"http 10.96.0.1:80", "http 10.96.0.2:80", "tcp 10.96.0.3:1"}, "10.1.0.2", "fd01::2")
			a := b.applied(n)
			before := b.dump()
			b.must(d.do(b))
			found, err := a.Drift(t.Context(), b.plan(n))
			b.must(err)
			if len(found) != 1+d.others {
				t.Errorf("found %v, want %d", found, 1+d.others)
			}
			if len(found) > 0 {
				if diff := cmp.Diff(d.want, found[0]); diff != "" {
					t.Errorf("first found (-want +got):\n%s", diff)
				}
			}
			b.must(a.Apply(t.Context(), b.plan(n)))
			want := before
			if d.what == "jump second" {
				// The other rule is not ours to remove.
				want = strings.Replace(before, "-A PREROUTING -p tcp -j NODEVOY-PREROUTING\n", "-A PREROUTING -p tcp -j NODEVOY-PREROUTING\n-A PREROUTING -p tcp -j ACCEPT\n", 1)
			}
			if after := b.dump(); after != want {
				t.Errorf("after the repair:\n%s\nwant:\n%s", after, want)
			}
			again, err := a.Drift(t.Context(), b.plan(n))
			b.must(err)
			if len(again) > 0 {
				t.Errorf("after the repair: %v", again)
			}
		})
	}
}

func TestDriftOfRouting(t *testing.T) {
	b := newBench(t)
	b.cfg.Mechanism = TPROXY
	n := node(t, nil, "10.1.0.2")
	a := b.applied(n)
	b.must(b.network.DeleteRule(b.cfg.routing(family.V6)))
	found, err := a.Drift(t.Context(), b.plan(n))
	b.must(err)
	if diff := cmp.Diff([]Drift{{DriftRouting, "ipv6 table 1064", "policy rule or route missing"}}, found); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	b.must(a.Apply(t.Context(), b.plan(n)))
	if has, _ := b.network.HasRule(b.cfg.routing(family.V6)); !has {
		t.Error("not repaired")
	}
}

// TestDriftOfEqualCount: one member for another is seen within a few checks.
func TestDriftOfEqualCount(t *testing.T) {
	b := newBench(t)
	n := node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
	a := b.applied(n)
	http := ipset.Spec{Name: "nodevoy-http4", Type: ipset.HashIPPort, Family: family.V4}
	b.must(b.sets.Flush(http.Name))
	b.must(b.sets.Add(http, []ipset.Member{netip.MustParseAddrPort("10.96.0.99:1")}))
	for range fullCheck {
		found, err := a.Drift(t.Context(), b.plan(n))
		b.must(err)
		if len(found) > 0 {
			b.must(a.Apply(t.Context(), b.plan(n)))
			b.holds("nodevoy-http4", "10.96.0.1,tcp:80")
			return
		}
	}
	t.Errorf("not seen in %d checks", fullCheck)
}

// TestDeadMansSwitch: without Refresh pods leave by themselves, and that is
// drift for an agent that comes to again.
func TestDeadMansSwitch(t *testing.T) {
	b := newBench(t)
	n := node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
	a := b.applied(n)
	b.now = b.now.Add(29 * time.Second)
	b.holds("nodevoy-pods4", "10.1.0.2")
	b.now = b.now.Add(time.Second)
	b.holds("nodevoy-pods4")
	found, err := a.Drift(t.Context(), b.plan(n))
	b.must(err)
	if len(found) != 1 || found[0].Kind != DriftMembers {
		t.Errorf("found %v, want the pod missing", found)
	}
}
