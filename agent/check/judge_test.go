// SPDX-License-Identifier: Apache-2.0

package check

import (
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// well is a node with an agent on which all is well.
func well(now time.Time) *Facts {
	applied := now.Add(-time.Second)
	return &Facts{
		Version: "v1", Kernel: "6.1.0", Capabilities: []string{"NET_ADMIN"}, Clock: Clock{Known: true, Synchronized: true},
		Agent: &Agent{
			Metrics: "127.0.0.1:23720",
			View: view.Status{
				Summary: view.Summary{
					Node: "node-a", Phase: "redirecting",
					Envoy:    view.Envoy{Version: "1.40.0", Connected: true, ListenersAcked: true},
					Redirect: view.Redirect{Mode: "pod", Backend: "nft", Rules: 52, Applied: &applied, Why: []string{"kube-proxy is in iptables mode: chain KUBE-SERVICES is there"}},
					Watches:  []view.Watch{{Kind: "pods", Synced: true}, {Kind: "servicecidrs", Absent: true}},
				},
				Pods: []view.Pod{{Namespace: "shop", Name: "web", Enrolled: true, Redirected: true}, {Namespace: "batch", Name: "job"}},
			},
		},
	}
}

// bare is a node without an agent that has what one needs.
func bare() *Facts {
	return &Facts{
		Version: "v1", Kernel: "6.1.0", Clock: Clock{Known: true, Synchronized: true},
		Probe: &Probe{Mode: "pod", Backend: "nft", Reasons: []string{
			"kube-proxy is in iptables mode: chain KUBE-SERVICES is there",
			"mode pod: the node has what it needs; it goes with every CNI and kube-proxy, and backends see the pods' own addresses",
		}},
	}
}

func TestAllIsWell(t *testing.T) {
	now := time.Unix(1e9, 0)
	for name, f := range map[string]*Facts{"installed": well(now), "not installed": bare()} {
		t.Run(name, func(t *testing.T) {
			r := Judge("node-a", f, now)
			for _, l := range r.Lines {
				if l.Level != OK || l.Do != "" || l.Text == "" || l.Topic == "" {
					t.Errorf("not ok: %+v", l)
				}
			}
			if r.Worst() != OK || r.Mode != "pod" || r.Node != "node-a" || r.Installed != (name == "installed") {
				t.Errorf("worst %s, %+v", r.Worst(), r)
			}
		})
	}
}

func TestEachFaultHasALineThatSaysWhatToDo(t *testing.T) {
	now := time.Unix(1e9, 0)
	long := now.Add(-time.Minute)
	shown := func(change func(*view.Status)) *Facts {
		f := well(now)
		change(&f.Agent.View)
		return f
	}
	probed := func(change func(*Probe)) *Facts {
		f := bare()
		change(f.Probe)
		return f
	}
	for _, tt := range []struct {
		facts *Facts
		level Level
		topic string
		says  string
	}{
		{shown(func(v *view.Status) { v.Stuck = "no round for 2m" }), Failed, "agent", "no round for 2m"},
		{shown(func(v *view.Status) { v.NotReady = "waiting for Envoy" }), Failed, "agent", "waiting for Envoy"},
		{shown(func(v *view.Status) { v.PendingSince = &long }), Warning, "agent", "1m0s"},
		{shown(func(v *view.Status) { v.Watches[0].Error = "forbidden" }), Failed, "objects", "pods can't be read or followed: forbidden"},
		{shown(func(v *view.Status) { v.Watches[0].Synced = false }), Warning, "objects", "pods have not all been read"},
		{shown(func(v *view.Status) { v.Problems, v.ProblemCount = []string{"Service shop/web: class: x"}, 1 }), Warning, "objects", "Service shop/web"},
		{shown(func(v *view.Status) { v.Envoy.Connected = false }), Failed, "envoy", "not connected"},
		{shown(func(v *view.Status) { v.Envoy.ListenersAcked = false }), Failed, "envoy", "has not accepted its listeners"},
		{shown(func(v *view.Status) { v.Envoy.ProbeError = "timeout" }), Failed, "envoy", "timeout"},
		{shown(func(v *view.Status) { v.Envoy.Nacks = 2 }), Warning, "envoy", "refused 2 updates"},
		{shown(func(v *view.Status) { v.Memory.Left, v.Memory.LeftServices = map[string]int{"shop/web": 2}, 1 }), Warning, "envoy", "shop/web (2)"},
		{shown(func(v *view.Status) { v.Redirect.Error = "no such table" }), Failed, "kernel", "no such table"},
		{shown(func(v *view.Status) { v.Redirect.CheckError = "locked" }), Warning, "kernel", "locked"},
		{shown(func(v *view.Status) { v.Redirect.Applied = nil }), Warning, "kernel", "no rules have been applied"},
		{shown(func(v *view.Status) { v.Redirect.DriftRepaired = 4 }), Warning, "kernel", "repaired 4 times"},
		{shown(func(v *view.Status) { v.Redirect.Leftover = "no permission" }), Warning, "kernel", "no permission"},
		{shown(func(v *view.Status) { v.Pods[0].Redirected, v.Pods[0].NotRedirected = false, "has nat rules" }), Warning, "pods", "1 of 1 that are enrolled are not redirected: shop/web (has nat rules)"},
		{shown(func(v *view.Status) { v.Redirect.Why = []string{"warning: eBPF programs act on connect"} }), Warning, "mode", "eBPF programs act on connect"},
		{func() *Facts { f := well(now); f.Agent.EnvoyError = "503"; return f }(), Failed, "envoy", "does not serve: 503"},
		{func() *Facts { f := well(now); f.Agent.MetricsError = "refused"; return f }(), Warning, "metrics", "no metrics at 127.0.0.1:23720: refused"},
		{func() *Facts { f := well(now); f.Agent, f.AgentError = nil, "timeout"; return f }(), Failed, "agent", "could not be asked: timeout"},
		{func() *Facts { f := well(now); f.Clock.Synchronized = false; return f }(), Warning, "clock", "nothing synchronizes it"},
		{func() *Facts { f := bare(); f.Ports = []string{"127.0.0.1:23720"}; return f }(), Failed, "ports", "127.0.0.1:23720"},
		{probed(func(p *Probe) { p.Mode, p.Missing = "", []Requirement{{"the kernel has no ipset", "modprobe ip_set"}} }), Failed, "mode", "the kernel has no ipset"},
		{probed(func(p *Probe) { p.Mode, p.Error = "", "the lock is held" }), Warning, "mode", "the lock is held"},
		{probed(func(p *Probe) { p.Reasons = []string{"mode pod can't be used: no SYS_ADMIN"} }), Warning, "mode", "no SYS_ADMIN"},
		{probed(func(p *Probe) { p.Reasons = []string{"not known whether there is load balancing at the socket: x"} }), Warning, "mode", "not known whether"},
	} {
		t.Run(tt.topic+" "+tt.says, func(t *testing.T) {
			r := Judge("node-a", tt.facts, now)
			var bad []Line
			for _, l := range r.Lines {
				if l.Level != OK {
					bad = append(bad, l)
				}
			}
			if len(bad) != 1 || bad[0].Level != tt.level || bad[0].Topic != tt.topic || !strings.Contains(bad[0].Text, tt.says) || bad[0].Do == "" {
				t.Errorf("lines %+v, want one that is %s, about %s, and says %q and what to do", bad, tt.level, tt.topic, tt.says)
			}
			if r.Worst() != tt.level {
				t.Errorf("worst %s, want %s", r.Worst(), tt.level)
			}
		})
	}
}

func TestOnlyTheFirstPodsAreNamed(t *testing.T) {
	now := time.Unix(1e9, 0)
	f := well(now)
	for range 5 {
		f.Agent.View.Pods = append(f.Agent.View.Pods, view.Pod{Namespace: "a", Name: "b", Enrolled: true})
	}
	r := Judge("node-a", f, now)
	i := len(r.Lines) - 1
	for r.Lines[i].Topic != "pods" {
		i--
	}
	if want := "5 of 6 that are enrolled are not redirected: a/b (not said why), a/b (not said why), a/b (not said why), and 2 more"; r.Lines[i].Text != want {
		t.Errorf("said %q, want %q", r.Lines[i].Text, want)
	}
}
