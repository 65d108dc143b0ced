// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// viewPlan is the plan, with what of it was not in place at the last check.
func (s *State) viewPlan() view.RedirectPlan {
	s = s.orStarting()
	out := view.RedirectPlan{
		At: s.At, Phase: string(s.Phase), Reason: s.Reason, Redirect: s.viewRedirect(),
		Checked: moment(s.Checked), Mended: len(s.Drift) > 0 && s.Applied.After(s.Checked),
		Drift: []view.Drift{}, Families: []view.Family{}, Pods: []view.PodRules{},
	}
	for _, d := range s.Drift {
		out.Drift = append(out.Drift, viewDrift(d))
	}
	if s.Plan == nil {
		return out
	}
	found := finder{drift: out.Drift, checked: !s.Checked.IsZero(), mended: out.Mended}
	for _, f := range sharedFamilies(s.Plan) {
		out.Families = append(out.Families, found.family(f))
	}
	for i := range s.Plan.Pods {
		p := &s.Plan.Pods[i]
		state := s.Pods[p.UID]
		pod := view.PodRules{
			Namespace: p.Namespace, Name: p.Pod, UID: p.UID, IPs: []string{}, Netns: state.Netns,
			Redirected: state.Redirecting, Reason: state.Reason, Terminating: p.Terminating,
		}
		for _, ip := range p.IPs {
			pod.IPs = append(pod.IPs, ip.String())
		}
		out.Pods = append(out.Pods, pod)
	}
	return out
}

// sharedFamilies are the host's or, in pod mode, those that the pods share, without what
// is each pod's own.
func sharedFamilies(p *plan.Plan) []plan.FamilyPlan {
	if p.Mode != plan.PodMode {
		return p.Families
	}
	var all []plan.FamilyPlan
	for _, f := range family.All() {
		for i := range p.Pods {
			if one, ok := p.Pods[i].Family(f); ok {
				one.Pods.Members = nil
				all = append(all, one)
				break
			}
		}
	}
	return all
}

// viewDrift tells the pod, if any, from the name: see pods.Drift.
func viewDrift(d apply.Drift) view.Drift {
	out := view.Drift{Kind: d.Kind, Name: d.Name, Detail: d.Detail}
	if pod, name, ok := strings.Cut(d.Name, ": "); ok {
		out.Pod, out.Name = pod, name
	}
	return out
}

// finder says of parts of a plan whether they were in place.
type finder struct {
	drift           []view.Drift
	checked, mended bool
}

func (f finder) of(name string, kinds ...string) view.Found {
	if !f.checked {
		return view.Found{}
	}
	var out view.Found
	for _, d := range f.drift {
		for _, kind := range kinds {
			if d.Kind != kind || d.Name != name || f.mended {
				continue
			}
			if d.Pod != "" {
				d.Detail = d.Pod + ": " + d.Detail
			}
			out.Found = append(out.Found, d.Detail)
		}
	}
	inPlace := len(out.Found) == 0
	out.InPlace = &inPlace
	return out
}

func (f finder) family(p plan.FamilyPlan) view.Family {
	out := view.Family{Family: p.Family.String(), Address: p.Address.String(), Sets: []view.Set{}, Jumps: []view.Jump{}, Chains: []view.Chain{}}
	for _, s := range p.Sets() {
		out.Sets = append(out.Sets, view.Set{
			Name: s.Name, Type: string(s.Type), Reason: s.Reason, Members: len(s.Members), TimeoutSeconds: int(s.Timeout.Seconds()),
			Found: f.of(s.Name, apply.DriftSet, apply.DriftMembers),
		})
	}
	for _, j := range p.Jumps {
		out.Jumps = append(out.Jumps, view.Jump{
			Table: j.Table, Parent: j.Parent, Rule: view.Rule{Spec: j.Spec, Reason: j.Reason},
			Found: f.of(p.Family.String()+" "+j.Table+" "+j.Parent, apply.DriftJump),
		})
	}
	for _, c := range p.Chains {
		chain := view.Chain{Table: c.Table, Name: c.Name, Rules: []view.Rule{}, Found: f.of(p.Family.String()+" "+c.Table+" "+c.Name, apply.DriftChain)}
		for _, r := range c.Rules {
			chain.Rules = append(chain.Rules, view.Rule{Spec: r.Spec, Reason: r.Reason})
		}
		out.Chains = append(out.Chains, chain)
	}
	return out
}
