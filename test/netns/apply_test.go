// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"net/netip"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/probe"
	"github.com/nodevoy/nodevoy/test/netns/space"
	"github.com/nodevoy/nodevoy/test/scenario"
)

// ways are both mechanisms on both backends, on unnumbered veths.
func ways() []setting {
	var all []setting
	for _, m := range []plan.Mechanism{plan.DNAT, plan.TPROXY} {
		for _, b := range []netfilter.Backend{netfilter.NFT, netfilter.Legacy} {
			all = append(all, setting{m, b, space.Unnumbered, false, "iptables"})
		}
	}
	return all
}

// each runs a test in a fixture of each way.
func each(t *testing.T, test func(t *testing.T, s setting)) {
	t.Helper()
	for _, s := range ways() {
		t.Run(s.String(), func(t *testing.T) { test(t, s) })
	}
}

// ours keeps of a text the lines that speak of something of nodevoy's.
func ours(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if regexp.MustCompile(`(?i)nodevoy`).MatchString(line) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestReadBack: what the node's commands print is byte for byte what the plan
// renders, so that drift can be seen by comparing text.
func TestReadBack(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		w := newFixtureApplied(t, s)
		for i := range w.plan.Families {
			f := &w.plan.Families[i]
			for _, c := range f.Chains {
				want := "-N " + c.Name + "\n"
				for _, r := range c.Rules {
					want += "-A " + c.Name + " " + r.Spec + "\n"
				}
				if d := cmp.Diff(want, w.Run(command(s.backend, f.Family)+" -t "+c.Table+" -S "+c.Name)); d != "" {
					t.Errorf("%s %s (-plan +kernel):\n%s", c.Table, c.Name, d)
				}
			}
			if first := w.Run(command(s.backend, f.Family) + " -t " + f.Jumps[0].Table + " -S PREROUTING 1"); !strings.Contains(first, "NODEVOY-PREROUTING") {
				t.Errorf("the first rule of PREROUTING is %s", first)
			}
		}
		var rules, sets string
		for i := range w.plan.Families {
			rules += w.plan.Families[i].RenderRules()
			sets += w.plan.Families[i].RenderSets()
		}
		w.checkReadBack(rules, sets)
		found, err := w.applier.Drift(t.Context(), w.plan)
		w.must(err)
		if len(found) > 0 {
			t.Errorf("drift right after Apply: %v", found)
		}
	})
}

// checkReadBack compares rendered rules and sets with what iptables-save and
// ipset save show of nodevoy's.
func (w *fixture) checkReadBack(rules, sets string) {
	w.t.Helper()
	want := slices.DeleteFunc(lines(withoutReasons(rules)), func(l string) bool { return strings.HasPrefix(l, "*") || l == "COMMIT" })
	var have string
	for _, f := range family.All() {
		have += ours(rulesOnly(w.Run(command(w.cfg.Backend, f) + "-save")))
	}
	if d := cmp.Diff(want, lines(have)); d != "" {
		w.t.Errorf("rules (-rendered +kernel):\n%s", d)
	}
	if d := cmp.Diff(lines(withoutReasons(sets)), lines(ours(setsOnly(w.Run("ipset save"))))); d != "" {
		w.t.Errorf("sets (-rendered +kernel):\n%s", d)
	}
}

// TestScenarios: the goldens of every scenario are what the kernel then holds.
func TestScenarios(t *testing.T) {
	files, err := scenario.All("../scenario/testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		for _, b := range []netfilter.Backend{netfilter.NFT, netfilter.Legacy} {
			s, err := scenario.Load(path, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Run(s.Name+"-"+string(b), func(t *testing.T) {
				w := &fixture{Node: space.New(t), t: t, cfg: s.Redirect, plan: s.Plan}
				w.cfg.Backend = b
				a := newApplier(t, w.cfg)
				w.must(a.Apply(t.Context(), w.plan))
				w.checkReadBack(s.Golden(scenario.RulesSection), s.Golden(scenario.SetsSection))
				w.must(a.Cleanup(t.Context()))
				if left := w.Run("ipset save") + ours(w.Run("nft list ruleset")+w.Run("iptables-legacy-save")+w.Run("ip address")); left != "" {
					t.Errorf("left after Cleanup: %s", left)
				}
			})
		}
	}
}

// lines are those of a text, sorted.
func lines(text string) []string {
	l := strings.Split(strings.TrimSpace(text), "\n")
	sort.Strings(l)
	return l
}

func TestApplyTwice(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		w := newFixtureApplied(t, s)
		before := w.snapshot()
		w.must(w.applier.Apply(t.Context(), w.plan))
		w.must(newApplier(t, w.cfg).Apply(t.Context(), w.plan))
		if d := cmp.Diff(before, w.snapshot()); d != "" {
			t.Errorf("applied again (-before +after):\n%s", d)
		}
	})
}

func TestCleanup(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		w := newFixture(t, s)
		w.useTables()
		before := w.snapshot()
		w.must(w.applier.Prepare(t.Context(), w.plan))
		w.must(w.applier.Apply(t.Context(), w.plan))
		if w.snapshot() == before {
			t.Fatal("Apply has changed nothing")
		}
		// By a program that knows only the names, as `nodevoy cleanup` does.
		for range 2 {
			w.must(newApplier(t, plan.DefaultConfig()).Cleanup(t.Context()))
			if d := cmp.Diff(before, w.snapshot()); d != "" {
				t.Errorf("after Cleanup (-before +after):\n%s", d)
			}
		}
	})
}

// TestCleanupMakesNothing: on a node where nodevoy never was, Cleanup doesn't
// even set up a table.
func TestCleanupMakesNothing(t *testing.T) {
	w := &fixture{Node: space.New(t), t: t}
	before := w.Run("nft list ruleset") + w.Run("cat /proc/thread-self/net/ip_tables_names")
	w.must(newApplier(t, plan.DefaultConfig()).Cleanup(t.Context()))
	if after := w.Run("nft list ruleset") + w.Run("cat /proc/thread-self/net/ip_tables_names"); after != before {
		t.Errorf("Cleanup made %q, before %q", after, before)
	}
}

// TestSwitch: a configuration that changes leaves nothing of the one before.
func TestSwitch(t *testing.T) {
	w := newFixture(t, ways()[0])
	w.useTables()
	before := w.snapshot()
	for _, s := range append(ways(), ways()[0]) {
		w.cfg = config(s.mechanism, s.backend)
		w.plan = plan.Compile(view(), w.cfg)
		a := newApplier(t, w.cfg)
		w.must(a.Prepare(t.Context(), w.plan))
		w.must(a.Apply(t.Context(), w.plan))
		found, err := a.Drift(t.Context(), w.plan)
		w.must(err)
		if len(found) > 0 {
			t.Errorf("%s: %v", s, found)
		}
		other := map[netfilter.Backend]netfilter.Backend{netfilter.NFT: netfilter.Legacy, netfilter.Legacy: netfilter.NFT}[s.backend]
		for _, f := range family.All() {
			if left := ours(w.Run(command(other, f) + "-save")); left != "" {
				t.Errorf("%s: %s has %s", s, command(other, f), left)
			}
		}
	}
	w.must(w.applier.Cleanup(t.Context()))
	if d := cmp.Diff(before, w.snapshot()); d != "" {
		t.Errorf("after Cleanup (-before +after):\n%s", d)
	}
}

// manyPods is how many there are in thousands.
const manyPods = 100

// thousands is a view with many frontends, of one family.
func thousands(frontends int) *model.Node {
	n := &model.Node{}
	for i := range frontends {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80)
		n.Frontends = append(n.Frontends, &model.Frontend{Address: at, Class: model.Class(i % 3), Backends: []model.Backend{{}}})
	}
	for i := range manyPods {
		n.Pods = append(n.Pods, model.Pod{Enrolled: true, IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i + 2)})}})
	}
	return n
}

// TestRuleCount: the kernel has as many rules of ours with 10 Services as with
// 10,000.
func TestRuleCount(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		w := newFixture(t, s)
		count := func() (n int) {
			for _, f := range family.All() {
				n += strings.Count(ours(w.Run(command(s.backend, f)+"-save")), "-A ")
			}
			return n
		}
		var counts []int
		for _, services := range []int{10, 10000} {
			w.must(w.applier.Apply(t.Context(), plan.Compile(thousands(services), w.cfg)))
			counts = append(counts, count())
		}
		if counts[0] != counts[1] || counts[0] != w.plan.RuleCount() {
			t.Errorf("rules with 10 and 10,000 Services: %v, the plan says %d", counts, w.plan.RuleCount())
		}
		members := 0
		for _, line := range lines(w.Run("ipset save")) {
			if strings.HasPrefix(line, "add nodevoy-") {
				members++
			}
		}
		if members != 10100 {
			t.Errorf("%d members, want 10,000 frontends and 100 pods", members)
		}
	})
}

// TestBridgedTPROXY: where bridged frames pass through iptables tproxy loses
// packets, so it must refuse.
func TestBridgedTPROXY(t *testing.T) {
	s := setting{plan.TPROXY, netfilter.NFT, space.Bridged, true, "iptables"}
	w := newFixture(t, s)
	err := w.applier.Apply(t.Context(), w.plan)
	if err == nil || !strings.Contains(err.Error(), "veth2") {
		t.Errorf("Apply: %v, want a refusal that names a veth", err)
	}
	if _, err := probe.Run(t.Context(), w.cfg, netns.DefaultConfig(), zap.NewNop()); err == nil || !strings.Contains(err.Error(), "bridge-nf-call-iptables") {
		t.Errorf("Probe: %v, want a refusal that names the setting", err)
	}
	w.checkTruths([]truth{{from: "stranger", to: httpService, want: "pod"}, {from: "node", to: httpService, want: "pod"}})
}
