// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

func TestConfig(t *testing.T) {
	if err := plan.DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	for _, tc := range []struct {
		want   string
		change func(c *plan.Config)
	}{
		{`mechanism: "nat" is no mechanism`, func(c *plan.Config) { c.Mechanism = "nat" }},
		{`"ebpf" is no iptables backend`, func(c *plan.Config) { c.Backend = "ebpf" }},
		{"families: none", func(c *plan.Config) { c.Families = nil }},
		{"10.0.0.1 is not in 169.254.0.0/16", func(c *plan.Config) { c.Address4 = netip.MustParseAddr("10.0.0.1") }},
		{"2001:db8::1 is not in fc00::/7", func(c *plan.Config) { c.Address6 = netip.MustParseAddr("2001:db8::1") }},
		{"none may be 0", func(c *plan.Config) { c.Ports.HTTP = 0 }},
		{"no two may be equal", func(c *plan.Config) { c.Ports.HTTP = c.Ports.TCP }},
		{"mark: 0", func(c *plan.Config) { c.Mark = 0 }},
		{"route table 254", func(c *plan.Config) { c.Table = 254 }},
		{"connections of a pod 1000001: want 0 for none, or up to 1000000", func(c *plan.Config) { c.MaxConnections = 1_000_001 }},
		{"connections of a pod in a second 100001: want 0 for none, or up to 100000", func(c *plan.Config) { c.MaxConnectionRate = 100_001 }},
		{"redirect timeout 1s", func(c *plan.Config) { c.Timeout = time.Second }},
		{"redirect timeout 3.5s", func(c *plan.Config) { c.Timeout = 3500 * time.Millisecond }},
	} {
		c := plan.DefaultConfig()
		tc.change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("error %v, want %q", err, tc.want)
		}
	}
	c := plan.DefaultConfig()
	c.Mark, c.Table = 0, 0
	if err := c.Validate(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two faults: %v", err)
	}
}

// TestRuleCount: rules are as many with 10,000 Services and 1,000 pods as with none.
func TestRuleCount(t *testing.T) {
	big := &model.Node{}
	for i := range 10000 {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80)
		big.Frontends = append(big.Frontends, &model.Frontend{Address: at, Backends: []model.Backend{{}}})
	}
	for i := range 1000 {
		big.Pods = append(big.Pods, model.Pod{Enrolled: true, IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i + 1)})}})
	}
	for m, want := range map[plan.Mechanism]int{plan.DNAT: 30, plan.TPROXY: 40} {
		cfg := plan.DefaultConfig()
		cfg.Mechanism = m
		for _, n := range []*model.Node{{}, big} {
			if got := plan.Compile(n, cfg).RuleCount(); got != want {
				t.Errorf("%s with %d frontends: %d rules, want %d", m, len(n.Frontends), got, want)
			}
		}
	}
}

// TestCompileLeavesOut: what must never be in a set, whatever the model says.
func TestCompileLeavesOut(t *testing.T) {
	var texts []string
	for _, a := range []string{"169.254.169.254:80", "127.0.0.1:80", "224.0.0.1:80", "0.0.0.0:80", "[::1]:80", "[fe80::1]:80", "[ff02::1]:80", "[::]:80"} {
		texts = append(texts, "http "+a)
	}
	n := redirecttest.Node(t, append(texts, "http 10.96.0.1:80", "http 10.96.0.1:80", "http [::ffff:10.96.0.2]:80", "http 10.96.0.7:80", "http 10.96.0.8:80"), "10.1.0.2", "10.1.0.2", "fe80::2", "10.1.0.3")
	last := len(n.Frontends) - 1
	n.Frontends[last].Bypass = "because"
	n.Frontends[last-1].Backends = nil
	n.Pods[len(n.Pods)-1].Enrolled = false
	n.Pods = append(n.Pods, model.Pod{Enrolled: true})
	p := plan.Compile(n, plan.DefaultConfig())
	var got []string
	for i := range p.Families {
		for _, s := range p.Families[i].Sets() {
			for _, m := range s.Members {
				got = append(got, s.Name+" "+plan.MemberText(s.Type, m))
			}
		}
	}
	if want := "[nodevoy-http4 10.96.0.1,tcp:80 nodevoy-http4 10.96.0.2,tcp:80 nodevoy-pods4 10.1.0.2]"; fmt.Sprint(got) != want {
		t.Errorf("members %v, want %s", got, want)
	}
	if p.EnrolledIPs() != 1 {
		t.Errorf("%d enrolled IPs, want 1", p.EnrolledIPs())
	}
}

func TestCompileFamilies(t *testing.T) {
	cfg := plan.DefaultConfig()
	cfg.Families = []family.Family{family.V4}
	p := plan.Compile(redirecttest.Node(t, []string{"http [fd96::1]:80"}, "fd01::2"), cfg)
	if len(p.Families) != 1 || p.Families[0].Family != family.V4 || p.Mechanism != plan.DNAT {
		t.Errorf("plan %+v", p)
	}
	if strings.Contains(p.Render(), "ipv6") {
		t.Error("the plan speaks of ipv6")
	}
}

// TestReasons: every rule and set says why it is there.
func TestReasons(t *testing.T) {
	for _, m := range []plan.Mechanism{plan.DNAT, plan.TPROXY} {
		cfg := plan.DefaultConfig()
		cfg.Mechanism = m
		for _, f := range plan.Compile(&model.Node{}, cfg).Families {
			for _, c := range f.Chains {
				for _, r := range c.Rules {
					if len(r.Reason) < 10 {
						t.Errorf("%s %s: %s: reason %q", c.Table, c.Name, r.Spec, r.Reason)
					}
				}
			}
			for _, j := range f.Jumps {
				if len(j.Reason) < 10 {
					t.Errorf("jump to %s: reason %q", j.Chain, j.Reason)
				}
			}
			for _, s := range f.Sets() {
				if len(s.Reason) < 10 {
					t.Errorf("set %s: reason %q", s.Name, s.Reason)
				}
			}
		}
	}
}

func TestModeText(t *testing.T) {
	for _, want := range []plan.Mode{plan.AutoMode, plan.PodMode, plan.HostMode} {
		var got plan.Mode
		if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
			t.Errorf("%s is read as %q, %v", want, got, err)
		}
	}
	got := plan.HostMode
	if err := got.UnmarshalText([]byte("Pod")); err == nil || !strings.Contains(err.Error(), "want auto, pod or host") || got != plan.HostMode {
		t.Errorf("Pod is read as %q, %v", got, err)
	}
}
