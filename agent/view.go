// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/agent/debug/table"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
)

// maxProblems and maxLeft are how many problems, and Services that are left to kube-proxy,
// a summary lists.
const maxProblems, maxLeft = 100, 1000

// orStarting is a state that can be looked at before the first is published.
func (s *State) orStarting() *State {
	if s == nil {
		return &State{Phase: PhaseStarting, Reason: "the agent has just started"}
	}
	return s
}

// summary is the state at a glance, but for what depends on the time.
func (s *State) summary() view.Summary {
	s = s.orStarting()
	v := view.Summary{
		At: s.At, Phase: string(s.Phase), Reason: s.Reason, PendingSince: moment(s.PendingSince), ObjectsRead: moment(s.ObjectsRead), RedirectingSince: moment(s.Redirecting),
		Envoy: s.viewEnvoy(), Redirect: s.viewRedirect(),
		// Lists are lists in JSON, also empty ones.
		FrontendCount: map[string]int{}, Limits: []view.Limit{}, Watches: []view.Watch{}, Problems: []string{},
	}
	problems := s.problems()
	v.ProblemCount = len(problems)
	for _, p := range problems[:min(len(problems), maxProblems)] {
		v.Problems = append(v.Problems, ProblemLine(p))
	}
	v.Memory.Used, v.Memory.Limit = s.Envoy.Memory, s.MemoryLimit
	if s.Node == nil {
		return v
	}
	yes, no := s.enrolled()
	v.PodCount = view.PodCount{All: len(s.Node.Pods), Enrolled: yes + no, Redirected: yes}
	v.FrontendCount = s.countFrontends()
	s.viewLeft(&v.Memory)
	return v
}

func (s *State) viewEnvoy() view.Envoy {
	v := view.Envoy{
		Version: s.Envoy.Version.String(), Connected: s.Envoy.Connected, Since: moment(s.Envoy.Since), ListenersAcked: s.Envoy.ListenersAcked,
		Unanswered: s.Envoy.Pending, ProbeError: s.ProbeErr, Nacks: s.Envoy.NackCount,
	}
	for _, n := range s.Envoy.Nacks {
		v.LastNacks = append(v.LastNacks, view.Nack{At: n.At, Type: n.Type, Detail: n.Detail})
	}
	return v
}

func (s *State) viewRedirect() view.Redirect {
	v := view.Redirect{
		Mode: s.Mode.String(), Mechanism: s.Findings.Mechanism.String(), Backend: s.Findings.Backend.String(),
		Why: append([]string{}, s.Findings.Reasons...), Leftover: s.Leftover,
		Applied: moment(s.Applied), Error: s.ApplyErr, CheckError: s.CheckErr, DriftRepaired: s.DriftRepaired,
	}
	if s.Plan != nil {
		v.Rules = s.Plan.RuleCount()
	}
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
func viewWatches(all []kinds.Health) []view.Watch {
	watches := make([]view.Watch, 0, len(all))
	for _, h := range all {
		watches = append(watches, view.Watch{Kind: h.Kind, Synced: h.Synced, Absent: h.Absent, Error: text(h.Err), Since: moment(h.Since)})
	}
	return watches
}

// pod is what became of a pod: told by the redirector in pod mode; in host mode
// all enrolled pods share one fate.
func (s *State) pod(p *model.Pod) pods.State {
	state := s.Pods[podUID(p)]
	if s.Mode != plan.PodMode {
		state = pods.State{Redirecting: p.Enrolled}
	}
	if p.Enrolled && s.Phase != PhaseRedirecting {
		state.Redirecting, state.Reason = false, string(s.Phase)
	}
	return state
}

// podUID is how plans and reports name a pod.
func podUID(p *model.Pod) string { return cmp.Or(p.UID, p.Namespace+"/"+p.Name) }

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

// viewLeft is what is left to kube-proxy for want of Envoy's memory.
func (s *State) viewLeft(m *view.Memory) {
	used := s.usedIfShort()
	left := map[string]int{}
	for _, f := range s.Node.Frontends {
		if f.Bypass == "" && s.short(f, used) != "" {
			left[f.Port.ServiceName()]++
			m.LeftCount++
		}
	}
	m.LeftServices = len(left)
	if len(left) > maxLeft {
		names := slices.SortedFunc(maps.Keys(left), func(a, b string) int {
			return cmp.Or(cmp.Compare(left[b], left[a]), cmp.Compare(a, b))
		})
		for _, name := range names[maxLeft:] {
			delete(left, name)
		}
	}
	m.Left = left
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
	return table.Printable(strings.Join(parts, ": "))
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
		f := n.Frontends[i]
		verdict := "class " + f.Class.String() + ": " + f.ClassReason
		if why := notRedirected(f); why != "" {
			verdict = "not redirected: " + why
		}
		lines = append(lines, fmt.Sprintf("frontend %s, %s: %s", f.Address, f.Port, verdict))
	}
	for i := range lines {
		lines[i] = table.Printable(lines[i])
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
