// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// eachBackend runs a test in a fixture of each.
func eachBackend(t *testing.T, test func(t *testing.T, b netfilter.Backend)) {
	t.Helper()
	for _, b := range backends() {
		t.Run(string(b), func(t *testing.T) { test(t, b) })
	}
}

// podSnapshot is everything in a pod's kernel that redirection could change.
func (w *podFixture) podSnapshot(pod *space.Pod) string {
	w.t.Helper()
	var b strings.Builder
	for _, c := range commands() {
		b.WriteString("== " + c + "\n" + rulesOnly(pod.Run(w.Node, c+"-save")))
	}
	b.WriteString("== ipset\n" + setsOnly(pod.Run(w.Node, "ipset save")))
	for _, c := range []string{"ip -4 rule", "ip -6 rule", "ip -br address"} {
		b.WriteString("== " + c + "\n" + pod.Run(w.Node, c))
	}
	return b.String()
}

// TestPodReadBack: what the pod's kernel holds is byte for byte what the plan
// renders.
func TestPodReadBack(t *testing.T) {
	eachBackend(t, func(t *testing.T, b netfilter.Backend) {
		w := newPodFixtureApplied(t, b)
		var rules, sets string
		var have string
		for _, fp := range w.plan.Pods[0].Families {
			rules, sets = rules+fp.RenderRules(), sets+fp.RenderSets()
			c := command(b, fp.Family)
			have += ours(rulesOnly(w.enrolled.Run(w.Node, c+"-save")))
			if first := w.enrolled.Run(w.Node, c+" -t nat -S OUTPUT 1"); first != "-A OUTPUT -p tcp -j NODEVOY-OUTPUT\n" {
				t.Errorf("the first rule of OUTPUT is %s", first)
			}
		}
		want := slices.DeleteFunc(lines(withoutReasons(rules)), func(l string) bool { return strings.HasPrefix(l, "*") || l == "COMMIT" })
		if d := cmp.Diff(want, lines(have)); d != "" {
			t.Errorf("rules (-rendered +kernel):\n%s", d)
		}
		if d := cmp.Diff(lines(withoutReasons(sets)), lines(ours(setsOnly(w.enrolled.Run(w.Node, "ipset save"))))); d != "" {
			t.Errorf("sets (-rendered +kernel):\n%s", d)
		}
		found, err := w.pods.Drift(t.Context(), w.plan)
		w.must(err)
		if len(found) > 0 {
			t.Errorf("drift right after Apply: %v", found)
		}
		if left := ours(w.Run("nft list ruleset") + w.Run("iptables-legacy-save") + w.Run("ipset save") + w.podSnapshot(w.stranger)); left != "" {
			t.Errorf("elsewhere: %s", left)
		}
	})
}

// TestPodApplyTwice: a new agent finds all in place and changes nothing.
func TestPodApplyTwice(t *testing.T) {
	eachBackend(t, func(t *testing.T, b netfilter.Backend) {
		w := newPodFixtureApplied(t, b)
		before := w.podSnapshot(w.enrolled)
		w.must(w.apply())
		_, w.pods = newPods(t, w.cfg, w.dir)
		w.must(w.apply())
		if d := cmp.Diff(before, w.podSnapshot(w.enrolled)); d != "" {
			t.Errorf("applied again (-before +after):\n%s", d)
		}
		// One that uses other ports takes over.
		w.cfg.Ports = model.Ports{TCP: 23731, HTTP: 23732, Detect: 23733}
		w.envoyIn(w.enrolled, family.All()...)
		_, w.pods = newPods(t, w.cfg, w.dir)
		w.must(w.apply())
		if rules := w.enrolled.Run(w.Node, command(b, family.V6)+" -t nat -S"); strings.Contains(rules, "23722") || !strings.Contains(rules, "23732") || strings.Count(rules, "-j NODEVOY-OUTPUT") != 1 {
			t.Errorf("after the takeover: %s", rules)
		}
		w.checkPods("")
	})
}

// TestPodCleanup: what a program that knows only the names leaves in pods, after a
// crash of either backend's agent: nothing.
func TestPodCleanup(t *testing.T) {
	eachBackend(t, func(t *testing.T, b netfilter.Backend) {
		w := newPodFixture(t, b)
		w.envoyIn(w.enrolled, family.All()...)
		before := w.podSnapshot(w.enrolled)
		stranger := w.stranger.Run(w.Node, "nft list ruleset")
		w.must(w.apply())
		for range 2 {
			_, p := newPods(t, plan.DefaultConfig(), w.dir)
			w.must(p.Cleanup(t.Context()))
			// Empty tables stay; see Cleanup.
			after := strings.NewReplacer("*nat\n", "", "COMMIT\n", "").Replace(w.podSnapshot(w.enrolled))
			if d := cmp.Diff(before, after); d != "" {
				t.Errorf("after Cleanup (-before +after):\n%s", d)
			}
		}
		if after := w.stranger.Run(w.Node, "nft list ruleset"); after != stranger {
			t.Errorf("in another pod: %s", after)
		}
		w.checkPods("pod")
	})
}

// podDamages is what a container with NET_ADMIN can do to its own namespace.
func podDamages() []damage {
	return []damage{
		{what: "rules flushed", commands: []string{"IPT -t nat -F", "IPT -t nat -X"}, want: []string{apply.DriftChain, apply.DriftJump}},
		{what: "IPv6 rules flushed", commands: []string{"IPT6 -t nat -F", "IPT6 -t nat -X"}, want: []string{apply.DriftChain, apply.DriftJump}},
		{what: "jump deleted", commands: []string{"IPT -t nat -D OUTPUT -p tcp -j NODEVOY-OUTPUT"}, want: []string{apply.DriftJump}},
		{what: "own chain emptied", commands: []string{"IPT -t nat -F NODEVOY-OUTPUT"}, want: []string{apply.DriftChain}},
		{what: "rule in own chain", commands: []string{"IPT -t nat -I NODEVOY-OUTPUT 1 -j RETURN"}, want: []string{apply.DriftChain}},
		{what: "sets emptied", commands: []string{"ipset flush"}, want: []string{apply.DriftMembers}},
		{what: "all gone", commands: []string{"IPT -t nat -F", "IPT6 -t nat -F", "IPT -t nat -X", "IPT6 -t nat -X", "SETTLE", "ipset destroy"}, want: []string{apply.DriftSet, apply.DriftChain, apply.DriftJump}},
	}
}

// TestPodRepair: it is seen, and repaired.
func TestPodRepair(t *testing.T) {
	eachBackend(t, func(t *testing.T, b netfilter.Backend) {
		w := newPodFixtureApplied(t, b)
		damages := podDamages()
		if b == netfilter.NFT {
			damages = append(damages, damage{what: "ruleset flushed", commands: []string{"nft flush ruleset"}, want: []string{apply.DriftChain, apply.DriftJump}})
		}
		before := w.podSnapshot(w.enrolled)
		for _, d := range damages {
			for _, c := range d.commands {
				if c == "SETTLE" {
					w.settleIn(w.enrolled)
					continue
				}
				w.enrolled.Run(w.Node, strings.NewReplacer("IPT6", command(b, family.V6), "IPT", command(b, family.V4)).Replace(c))
			}
			found, err := w.pods.Drift(t.Context(), w.plan)
			w.must(err)
			w.checkKinds(found, d.want)
			w.must(w.pods.Apply(t.Context(), w.plan))
			if diff := cmp.Diff(before, w.podSnapshot(w.enrolled)); diff != "" {
				t.Errorf("%s: after the repair (-before +after):\n%s", d.what, diff)
			}
			if found, err := w.pods.Drift(t.Context(), w.plan); err != nil || len(found) > 0 {
				t.Errorf("%s: after the repair: %v, %v", d.what, found, err)
			}
			w.checkPods("")
		}
	})
}

// settleIn is settle in a pod.
func (w *podFixture) settleIn(pod *space.Pod) {
	w.t.Helper()
	space.Until(w.t, limit, "rules to let go of sets", func() error {
		for line := range strings.Lines(pod.Run(w.Node, "ipset list -t")) {
			if strings.HasPrefix(line, "References: ") && line != "References: 0\n" {
				return errors.New(line)
			}
		}
		return nil
	})
}

// checkKinds checks that these kinds of drift are found, in the enrolled pod.
func (w *podFixture) checkKinds(found []apply.Drift, want []string) {
	w.t.Helper()
	for _, kind := range want {
		if !slices.ContainsFunc(found, func(d apply.Drift) bool { return d.Kind == kind }) {
			w.t.Errorf("no drift of kind %s in %v", kind, found)
		}
	}
	for _, d := range found {
		if !slices.Contains(want, d.Kind) || !strings.HasPrefix(d.Name, "shop/enrolled: ") || d.Detail == "" {
			w.t.Errorf("unexpected drift %v", d)
		}
	}
}

// TestPodOwnRules: a pod that translates its own connections, in whatever way, is
// left alone; its rules stay and it is told why. What makes no rule is no reason.
func TestPodOwnRules(t *testing.T) {
	eachBackend(t, func(t *testing.T, b netfilter.Backend) {
		for _, tc := range []struct {
			make, unmake []string
			reason       string
		}{
			{[]string{"iptables-nft -t nat -A OUTPUT -p tcp --dport 9 -j ACCEPT"}, []string{"iptables-nft -t nat -F OUTPUT"}, "ipv4 nft nat: -A OUTPUT -p tcp -m tcp --dport 9 -j ACCEPT"},
			{[]string{"iptables-legacy -t nat -A OUTPUT -p tcp --dport 9 -j ACCEPT"}, []string{"iptables-legacy -t nat -F OUTPUT"}, "ipv4 legacy nat: -A OUTPUT -p tcp -m tcp --dport 9 -j ACCEPT"},
			{
				[]string{"nft add table inet mine", "nft add chain inet mine out { type nat hook output priority -100 ; }", "nft add rule inet mine out tcp dport 9 accept"},
				[]string{"nft delete table inet mine"},
				"nft chain inet mine out",
			},
		} {
			w := newPodFixture(t, b)
			w.envoyIn(w.enrolled, family.All()...)
			for _, c := range tc.make {
				w.enrolled.Run(w.Node, c)
			}
			before := w.podSnapshot(w.enrolled)
			if err := w.apply(); !errors.Is(err, pods.ErrPartial) || !errors.Is(err, apply.ErrForeignRules) {
				t.Errorf("Apply: %v, want ErrPartial and ErrForeign", err)
			}
			if s := w.pods.Report()["shop/enrolled"]; s.Redirecting || !strings.Contains(s.Reason, tc.reason) {
				t.Errorf("report %+v, want %q", s, tc.reason)
			}
			if d := cmp.Diff(before, w.podSnapshot(w.enrolled)); d != "" {
				t.Errorf("something was written (-before +after):\n%s", d)
			}
			w.checkPods("pod")
			for _, c := range tc.unmake {
				w.enrolled.Run(w.Node, c)
			}
			space.Until(t, limit, "the pod to be tried again", func() error { return w.pods.Apply(t.Context(), w.plan) })
			w.checkPods("")
			// Later, too.
			for _, c := range tc.make {
				w.enrolled.Run(w.Node, c)
			}
			found, err := w.pods.Drift(t.Context(), w.plan)
			w.must(err)
			w.checkKinds(found, []string{apply.DriftForeign})
			if err := w.pods.Apply(t.Context(), w.plan); !errors.Is(err, apply.ErrForeignRules) {
				t.Errorf("Apply: %v, want ErrForeign", err)
			}
			w.checkPods("pod")
		}
	})
}
