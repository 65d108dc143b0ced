// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
)

// planState is a state with the plan of two pods and a Service.
func planState(mode plan.Mode) *State {
	cfg := plan.DefaultConfig()
	cfg.Mode, cfg.Mechanism = mode, plan.DNAT
	node := model.Build(oneService(), model.Options{})
	second := node.Pods[0]
	second.Name, second.UID, second.IPs = "second", "uid-2", []netip.Addr{netip.MustParseAddr("10.244.1.6")}
	node.Pods = append(slices.Clone(node.Pods), second)
	s := &State{At: time.Unix(100, 0), Mode: mode, Phase: PhaseRedirecting, Node: node, Plan: plan.Compile(node, cfg), Applied: time.Unix(90, 0)}
	if mode == plan.PodMode {
		s.Pods = map[string]pods.State{"uid-2": {Redirecting: true, Netns: "/run/netns/x"}}
	}
	return s
}

// notInPlace are the parts of which the plan says that they were not in place.
func notInPlace(p view.RedirectPlan) (names []string, unknown int) {
	note := func(name string, f view.Found) {
		switch {
		case f.InPlace == nil:
			unknown++
		case !*f.InPlace:
			names = append(names, name+": "+strings.Join(f.Found, ", "))
		}
	}
	for _, f := range p.Families {
		for _, s := range f.Sets {
			note(s.Name, s.Found)
		}
		for _, j := range f.Jumps {
			note(f.Family+" "+j.Parent, j.Found)
		}
		for _, c := range f.Chains {
			note(f.Family+" "+c.Name, c.Found)
		}
	}
	return names, unknown
}

// TestViewPlan shows every rule with its reason, and what of the plan the last check did
// not find, until it was applied again.
func TestViewPlan(t *testing.T) {
	for _, tt := range []struct {
		mode  plan.Mode
		drift []apply.Drift
		want  []string
	}{
		{plan.HostMode, []apply.Drift{
			{Kind: apply.DriftJump, Name: "ipv4 nat PREROUTING", Detail: "missing"},
			{Kind: apply.DriftMembers, Name: "nodevoy-pods4", Detail: "missing 10.244.1.5"},
		}, []string{"nodevoy-pods4: missing 10.244.1.5", "ipv4 PREROUTING: missing"}},
		{plan.PodMode, []apply.Drift{
			{Kind: apply.DriftChain, Name: "demo/second: ipv4 nat NODEVOY-OUTPUT", Detail: "rule 1: want a: b, found c"},
		}, []string{"ipv4 NODEVOY-OUTPUT: demo/second: rule 1: want a: b, found c"}},
	} {
		t.Run(tt.mode.String(), func(t *testing.T) {
			s := planState(tt.mode)
			if _, unknown := notInPlace(s.viewPlan()); unknown == 0 {
				t.Error("before a check it is known what is in place")
			}
			s.Checked = time.Unix(95, 0)
			if names, unknown := notInPlace(s.viewPlan()); len(names) > 0 || unknown > 0 {
				t.Errorf("after a check that found nothing, not in place are %q, unknown %d", names, unknown)
			}
			s.Drift = tt.drift
			v := s.viewPlan()
			if names, _ := notInPlace(v); !slices.Equal(names, tt.want) {
				t.Errorf("not in place are %q, want %q", names, tt.want)
			}
			if len(v.Drift) != len(tt.drift) || v.Mended {
				t.Errorf("drift %+v, mended %v", v.Drift, v.Mended)
			}
			if d := v.Drift[0]; (d.Pod == "demo/second") != (tt.mode == plan.PodMode) || strings.Contains(d.Name, ": ") {
				t.Errorf("drift %+v", d)
			}
			s.Applied = time.Unix(96, 0)
			if v := s.viewPlan(); !v.Mended || len(v.Drift) != len(tt.drift) {
				t.Errorf("applied again: mended %v, drift %+v", v.Mended, v.Drift)
			} else if names, _ := notInPlace(v); len(names) > 0 {
				t.Errorf("applied again, not in place are %q", names)
			}
			reasons(t, s.viewPlan())
		})
	}
}

// reasons wants one for every rule and set, and as many rules as the plan has.
func reasons(t *testing.T, v view.RedirectPlan) {
	t.Helper()
	rules := 0
	for _, f := range v.Families {
		for _, s := range f.Sets {
			if s.Reason == "" {
				t.Errorf("set %+v", s)
			}
		}
		all := []view.Rule{}
		for _, j := range f.Jumps {
			all = append(all, j.Rule)
		}
		for _, c := range f.Chains {
			all = append(all, c.Rules...)
		}
		for _, r := range all {
			if r.Spec == "" || r.Reason == "" {
				t.Errorf("rule %+v", r)
			}
		}
		rules += len(all)
	}
	if times := max(1, len(v.Pods)); rules*times != v.Rules || rules == 0 {
		t.Errorf("%d rules for each of %d, %d in all", rules, times, v.Rules)
	}
	if len(v.Pods) > 0 {
		want := view.PodRules{Namespace: "demo", Name: "second", UID: "uid-2", IPs: []string{"10.244.1.6"}, Netns: "/run/netns/x", Redirected: true}
		if got := v.Pods[1]; !slices.Equal(got.IPs, want.IPs) || got.UID != want.UID || !got.Redirected || got.Netns != want.Netns {
			t.Errorf("pod %+v, want %+v", got, want)
		}
	}
}
