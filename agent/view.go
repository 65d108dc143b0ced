// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
)

// view is the state as the debug endpoint shows it, but for what depends on the
// time; all asks for every frontend, else only those Envoy uses are listed.
func (s *State) view(all bool) debug.View {
	if s == nil {
		s = &State{Phase: PhaseStarting, Reason: "the agent has just started"}
	}
	v := debug.View{
		At: s.At, Phase: string(s.Phase), Reason: s.Reason, PendingSince: moment(s.PendingSince), ObjectsRead: moment(s.ObjectsRead), RedirectingSince: moment(s.Redirecting),
		Envoy: debug.Envoy{
			Version: s.Envoy.Version.String(), Connected: s.Envoy.Connected, Since: moment(s.Envoy.Since), ListenersAcked: s.Envoy.ListenersAcked,
			Unanswered: s.Envoy.Pending, ProbeError: s.ProbeErr, Nacks: s.Envoy.NackCount,
		},
		Redirect: debug.Redirect{
			Mode: s.Mode.String(), Mechanism: s.Findings.Mechanism.String(), Backend: s.Findings.Backend.String(),
			Why: append([]string{}, s.Findings.Reasons...), Leftover: s.Leftover,
			Applied: moment(s.Applied), Error: s.ApplyErr, CheckError: s.CheckErr, DriftRepaired: s.DriftRepaired,
		},
		// Lists are lists in JSON, also empty ones.
		Pods: []debug.Pod{}, Frontends: []debug.Frontend{}, FrontendCount: map[string]int{}, Watches: []debug.Watch{}, Problems: []string{},
	}
	for _, n := range s.Envoy.Nacks {
		v.Envoy.LastNacks = append(v.Envoy.LastNacks, debug.Nack{At: n.At, Type: n.Type, Detail: n.Detail})
	}
	for _, p := range s.problems() {
		v.Problems = append(v.Problems, ProblemLine(p))
	}
	if s.Node == nil {
		return v
	}
	v.Redirect.Rules = s.Plan.RuleCount()
	viewPods(&v, s)
	viewFrontends(&v, s, all)
	return v
}

// resolved is a configuration with what was found on the node.
func (s *State) resolved(cfg plan.Config) plan.Config {
	if s == nil {
		return cfg
	}
	return s.Findings.Resolve(cfg)
}

// viewWatches shows how the reading of each kind of objects goes.
func viewWatches(all []kinds.Health) []debug.Watch {
	watches := make([]debug.Watch, 0, len(all))
	for _, h := range all {
		watches = append(watches, debug.Watch{Kind: h.Kind, Synced: h.Synced, Absent: h.Absent, Error: text(h.Err), Since: moment(h.Since)})
	}
	return watches
}

func viewPods(v *debug.View, s *State) {
	for i := range s.Node.Pods {
		p := &s.Node.Pods[i]
		state := s.pod(p)
		pod := debug.Pod{
			Namespace: p.Namespace, Name: p.Name, IPs: []string{}, Enrolled: p.Enrolled, Reason: p.Reason,
			Redirected: state.Redirecting, NotRedirected: state.Reason, Netns: state.Netns,
		}
		for _, ip := range p.IPs {
			pod.IPs = append(pod.IPs, ip.String())
		}
		v.Pods = append(v.Pods, pod)
	}
}

// pod is what became of a pod: told by the redirector in pod mode; in host mode
// all enrolled pods share one fate.
func (s *State) pod(p *model.Pod) pods.State {
	state := s.Pods[cmp.Or(p.UID, p.Namespace+"/"+p.Name)]
	if s.Mode != plan.PodMode {
		state = pods.State{Redirecting: p.Enrolled}
	}
	if p.Enrolled && s.Phase != PhaseRedirecting {
		state.Redirecting, state.Reason = false, string(s.Phase)
	}
	return state
}

// enrolled counts the enrolled pods that are redirected, and the others.
func (s *State) enrolled() (redirected, others int) {
	if s.Node == nil {
		return 0, 0
	}
	for i := range s.Node.Pods {
		p := &s.Node.Pods[i]
		switch {
		case !p.Enrolled:
		case s.pod(p).Redirecting:
			redirected++
		default:
			others++
		}
	}
	return redirected, others
}

func viewFrontends(v *debug.View, s *State, all bool) {
	used := s.inUse()
	v.FrontendCount = s.countFrontends()
	v.Memory = s.viewMemory(used)
	for _, f := range s.Node.Frontends {
		if all || used[f.Address] {
			shown := viewFrontend(f, used[f.Address])
			shown.Bypass = cmp.Or(shown.Bypass, s.short(f, used))
			if why := s.Envoy.Refused.Frontend(f); why != "" {
				shown.Bypass = cmp.Or(shown.Bypass, "Envoy refused "+why)
			}
			v.Frontends = append(v.Frontends, shown)
		}
	}
}

// viewMemory is what Services in use take of Envoy's memory, and what is left to
// kube-proxy for want of it.
func (s *State) viewMemory(used map[netip.AddrPort]bool) debug.Memory {
	m := debug.Memory{Used: s.Envoy.Memory, Limit: s.MemoryLimit, Left: map[string]int{}}
	for _, f := range s.Node.Frontends {
		if f.Bypass == "" && s.short(f, used) != "" {
			m.Left[f.Port.ServiceName()]++
		}
	}
	return m
}

func viewFrontend(f *model.Frontend, used bool) debug.Frontend {
	out := debug.Frontend{
		Backends: []debug.Backend{},
		Address:  f.Address.String(), Service: f.Port.String(), Class: f.Class.String(),
		Why: f.ClassReason, Bypass: f.Bypass, InUse: used,
	}
	if f.Bypass == "" && len(f.Backends) == 0 {
		out.Bypass = "no backend is ready; kube-proxy, if the node has one, refuses the connection"
	}
	for _, b := range f.Backends {
		backend := debug.Backend{Address: b.Address.String(), Node: b.Node, Zone: b.Zone, Terminating: b.Terminating}
		if b.Pod != "" {
			backend.Pod = b.Namespace + "/" + b.Pod
		}
		out.Backends = append(out.Backends, backend)
	}
	return out
}

// ProblemLine writes a problem as `Kind namespace/name: field: detail`.
func ProblemLine(p model.Problem) string {
	object := p.Kind
	switch {
	case p.Namespace != "":
		object += " " + p.Namespace + "/" + p.Name
	case p.Name != "":
		object += " " + p.Name
	}
	parts := slices.DeleteFunc([]string{object, p.Field, p.Detail}, func(s string) bool { return s == "" })
	return debug.Printable(strings.Join(parts, ": "))
}

// Explain says of each pod whether it is enrolled and of each frontend where
// its connections go, with the reason, in a line each.
func Explain(n *model.Node) []string {
	lines := make([]string, 0, len(n.Pods)+len(n.Frontends))
	for _, p := range n.Pods {
		verdict := "not enrolled"
		if p.Enrolled {
			verdict = "enrolled"
		}
		lines = append(lines, fmt.Sprintf("pod %s/%s: %s: %s", p.Namespace, p.Name, verdict, p.Reason))
	}
	for i := range n.Frontends {
		f := viewFrontend(n.Frontends[i], false)
		verdict := "class " + f.Class + ": " + f.Why
		if f.Bypass != "" {
			verdict = "not redirected: " + f.Bypass
		}
		lines = append(lines, fmt.Sprintf("frontend %s, %s: %s", f.Address, f.Service, verdict))
	}
	for i := range lines {
		lines[i] = debug.Printable(lines[i])
	}
	return lines
}

// moment is nil for the zero time, so that JSON leaves it out.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
