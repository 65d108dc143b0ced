// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
	"github.com/nodevoy/nodevoy/redirect/tracer"
)

func podPlan(n *model.Node) *plan.Plan {
	cfg := plan.DefaultConfig()
	cfg.Mode = plan.PodMode
	return plan.Compile(n, cfg)
}

func TestCompilePods(t *testing.T) {
	n := redirecttest.Node(t, []string{"http 10.96.0.1:80", "tcp [fd96::1]:5432"}, "10.1.0.9", "10.1.0.2", "fe80::1", "fd01::5")
	n.Pods[0].IPs = append(n.Pods[0].IPs, netip.MustParseAddr("fd01::9"))
	n.Pods[1].UID = "7e1d"
	n.Pods = append(n.Pods, model.Pod{Namespace: "b", Name: "stranger", UID: "b0", IPs: n.Pods[0].IPs})
	p := podPlan(n)
	var got []string
	for _, pl := range p.Pods {
		line := fmt.Sprint(pl.Name(), " ", pl.UID, " ", pl.IPs)
		for _, f := range pl.Families {
			line += fmt.Sprint(" ", f.Family, " ", f.Address, " ", len(f.Frontends), " ", f.Pods.Members)
		}
		got = append(got, line)
	}
	want := []string{
		"a/10.1.0.2 7e1d [10.1.0.2] ipv4 127.0.0.1 3 [10.1.0.2:0]",
		"a/10.1.0.9 a/10.1.0.9 [10.1.0.9 fd01::9] ipv4 127.0.0.1 3 [10.1.0.9:0] ipv6 ::1 3 [[fd01::9]:0]",
		"a/fd01::5 a/fd01::5 [fd01::5] ipv6 ::1 3 [[fd01::5]:0]",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("places (-want +got):\n%s", d)
	}
	var live []string
	for _, pod := range p.LivePods {
		live = append(live, fmt.Sprint(pod.UID, " ", pod.Name, " ", pod.IPs))
	}
	if d := cmp.Diff([]string{
		"7e1d a/10.1.0.2 [10.1.0.2]",
		"a/10.1.0.9 a/10.1.0.9 [10.1.0.9 fd01::9]",
		"a/fd01::5 a/fd01::5 [fd01::5]",
		"a/fe80::1 a/fe80::1 [fe80::1]",
		"b0 b/stranger [10.1.0.9 fd01::9]",
	}, live); d != "" {
		t.Errorf("living (-want +got):\n%s", d)
	}
	if len(p.Families) > 0 || p.Mechanism != "" || p.EnrolledIPs() != 4 {
		t.Errorf("%d families of the host, mechanism %q, %d IPs", len(p.Families), p.Mechanism, p.EnrolledIPs())
	}
	// All share one list.
	if &p.Pods[0].Families[0].Frontends[0] != &p.Pods[1].Families[0].Frontends[0] {
		t.Error("each place has frontends of its own")
	}
	cfg := plan.DefaultConfig()
	cfg.Mode, cfg.Families = plan.PodMode, []family.Family{family.V4}
	if p := plan.Compile(n, cfg); len(p.Pods) != 2 || len(p.Pods[1].Families) != 1 {
		t.Errorf("places without IPv6: %+v", p.Pods)
	}
}

// TestRenderPods: what all pods share is shown once, with reasons.
func TestRenderPods(t *testing.T) {
	n := redirecttest.Node(t, []string{"http 10.96.0.1:80", "http [fd96::1]:80"}, "10.1.0.2", "10.1.0.3", "fd01::4")
	text := podPlan(n).Render()
	for line, want := range map[string]int{
		"add nodevoy-http4 10.96.0.1,tcp:80": 1, "add nodevoy-http6 fd96::1,tcp:80": 1,
		"add nodevoy-pods4 10.1.0.2": 1, "add nodevoy-pods4 10.1.0.3": 1, "add nodevoy-pods6 fd01::4": 1, "# pod a/10.1.0.3": 1,
		"-A OUTPUT -p tcp -j NODEVOY-OUTPUT":                                                             2,
		"-A NODEVOY-OUTPUT -m mark --mark 0x10/0x10 -j RETURN":                                           2,
		"-A NODEVOY-OUTPUT -p tcp -m set --match-set nodevoy-http4 dst,dst -j REDIRECT --to-ports 23722": 1,
	} {
		if got := strings.Count(text, line+"\n"); got != want {
			t.Errorf("%q is there %d times, want %d:\n%s", line, got, want, text)
		}
	}
	for _, bad := range []string{"ip address add", "PREROUTING", "filter"} {
		if strings.Contains(withoutComments(text), bad) {
			t.Errorf("the plan speaks of %s", bad)
		}
	}
	if podPlan(n).Render() != text {
		t.Error("the same plan renders differently")
	}
	for _, f := range podPlan(n).Pods[0].Families {
		for _, r := range append(f.Chains[0].Rules, f.Jumps[0].Rule) {
			if len(r.Reason) < 10 {
				t.Errorf("%s: reason %q", r.Spec, r.Reason)
			}
		}
	}
}

func withoutComments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestTracePods: a packet is traced in the pod that sends it; connections that
// exist are conntrack's. The truth table of test/netns has the rest.
func TestTracePods(t *testing.T) {
	p := podPlan(redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2", "10.1.0.3"))
	packet := tracer.Packet{Pod: "a/10.1.0.2", From: netip.MustParseAddr("10.1.0.2"), To: netip.MustParseAddrPort("10.96.0.1:80"), Out: "eth0"}
	for what, tc := range map[string]struct {
		change func(*tracer.Packet)
		want   string
	}{
		"its own":         {func(*tracer.Packet) {}, "127.0.0.1:23722"},
		"another's":       {func(p *tracer.Packet) { p.From = netip.MustParseAddr("10.1.0.3") }, "invalid AddrPort"},
		"nobody's":        {func(p *tracer.Packet) { p.Pod = "a/nobody" }, "invalid AddrPort"},
		"no IPv6 at all":  {func(p *tracer.Packet) { p.To = netip.MustParseAddrPort("[fd96::1]:80") }, "invalid AddrPort"},
		"held":            {func(p *tracer.Packet) { p.Established = true }, "127.0.0.1:0"},
		"the node's own":  {func(p *tracer.Packet) { p.Pod = "" }, "invalid AddrPort"},
		"Envoy's own":     {func(p *tracer.Packet) { p.Mark = 0x10 }, "invalid AddrPort"},
		"a datagram":      {func(p *tracer.Packet) { p.UDP = true }, "invalid AddrPort"},
		"to lo":           {func(p *tracer.Packet) { p.Out = "lo" }, "invalid AddrPort"},
		"to another port": {func(p *tracer.Packet) { p.To = netip.MustParseAddrPort("10.96.0.1:81") }, "invalid AddrPort"},
	} {
		changed := packet
		tc.change(&changed)
		v, err := tracer.Trace(p, changed)
		if err != nil || v.Listener.String() != tc.want {
			t.Errorf("%s: %s, %v, want %s; rules met: %q", what, v.Listener, err, tc.want, v.Steps)
		}
	}
}
