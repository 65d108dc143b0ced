// SPDX-License-Identifier: Apache-2.0

package why

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/tracer"
)

// redirection is about whether this node, and this pod, is redirected at all.
func (e *explanation) redirection() {
	a := &e.Agent
	if !a.Redirecting {
		e.link("redirection", Broken, "this node redirects nothing now: %s", a.Reason)
		e.decide(ofPath, Bypassed, "%s go past Envoy, to kube-proxy: this node redirects nothing now: %s.", e.Calls(), a.Reason)
		return
	}
	where, lacks := "in the node's network namespace", ""
	if e.Mode == plan.PodMode {
		pod := e.pair.From.Pod
		state := e.Pods[uid(pod)]
		if !state.Redirecting {
			why := state.Reason
			if why == "" {
				why = "its network namespace was not looked for yet"
			}
			e.link("redirection", Broken, "pod %s is not redirected: %s", e.pair.From.name(), why)
			e.decide(ofPath, Bypassed, "%s go past Envoy, to kube-proxy: pod %s is not redirected: %s.", e.Calls(), e.pair.From.name(), why)
			return
		}
		where, lacks = "in the pod's network namespace, "+state.Netns, state.Reason
	}
	l := e.link("redirection", OK, "connections are redirected %s", where)
	if !a.Applied.IsZero() {
		l.Evidence = append(l.Evidence, "rules and sets were last applied "+ago(e.Now, a.Applied)+" ago")
	}
	if a.Reason != "" {
		l.Evidence = append(l.Evidence, "not in force yet: "+a.Reason)
	}
	if lacks != "" {
		l.Evidence = append(l.Evidence, "not all of the pod: "+lacks)
	}
}

// uid is how plans and reports name a pod.
func uid(pod *model.Pod) string {
	if pod.UID != "" {
		return pod.UID
	}
	return pod.Namespace + "/" + pod.Name
}

// rule is about the rule that takes the connections, and what makes it match.
func (e *explanation) rule(trace tracer.Verdict, err error) {
	var kernel *Kernel
	if e.Live != nil && e.Live.KernelErr == "" {
		kernel = e.Live.Kernel
	}
	e.sets(kernel)
	if err != nil || len(trace.Steps) == 0 || !trace.Listener.IsValid() {
		last := "no rule matches"
		if err != nil {
			last = err.Error()
		} else if n := len(trace.Steps); n > 0 {
			last = "the last is " + trace.Steps[n-1].Spec + ": " + trace.Steps[n-1].Reason
		}
		e.link("rule", Broken, "by the plan, no rule takes these connections: %s", last)
		e.decide(ofPath, Bypassed, "%s go past Envoy, to kube-proxy: no rule takes them.", e.Calls())
		return
	}
	taker := trace.By
	rule := &Rule{Table: taker.Table, Chain: taker.Chain, Spec: taker.Spec, Reason: taker.Reason}
	if kernel == nil {
		e.link("rule", OK, "to %s, as planned; the kernel was not looked at (--live)", trace.Listener).Rule = rule
		return
	}
	missing, packets := e.compare(trace, kernel)
	rule.Packets = packets
	if missing == "" {
		e.link("rule", OK, "to %s; the rule has matched %s", trace.Listener, count(int(*packets), "connection")).Rule = rule
		return
	}
	e.link("rule", Broken, "in the kernel, %s", missing).Rule = rule
	e.decide(ofPath, Bypassed, "%s go past Envoy, to kube-proxy: in the kernel, %s. The agent repairs that within 5 seconds.", e.Calls(), missing)
}

// compare says which of the rules that the connection has to match is not in the kernel
// where it should be, and how often the last of them has matched.
func (e *explanation) compare(trace tracer.Verdict, kernel *Kernel) (missing string, packets *uint64) {
	for _, step := range trace.Steps {
		i := slices.IndexFunc(kernel.Chains, func(c Chain) bool { return c.Table == step.Table && c.Name == step.Chain })
		if i < 0 || kernel.Chains[i].Missing {
			return fmt.Sprintf("the chain %s of table %s is missing", step.Chain, step.Table), nil
		}
		rules := kernel.Chains[i].Rules
		line := "-A " + step.Chain + " " + step.Spec
		at := slices.IndexFunc(rules, func(r CountedRule) bool { return r.Line == line })
		switch {
		case at < 0:
			return fmt.Sprintf("the rule %q of table %s is missing", line, step.Table), nil
		case step.Jump && at > 0:
			return fmt.Sprintf("the rule %q comes before %q in table %s", rules[0].Line, line, step.Table), nil
		}
		if step == trace.By {
			packets = &rules[at].Packets
		}
	}
	return "", packets
}

// sets are about the sets in the kernel.
func (e *explanation) sets(kernel *Kernel) {
	if kernel == nil {
		text := "not looked at (--live)"
		if e.Live != nil {
			text = "can't be read: " + e.Live.KernelErr
		}
		e.link("sets", Unknown, "%s", text)
		return
	}
	f := e.pair.To.Frontend
	all := append([]Entry{kernel.Source}, kernel.Frontend...)
	if kernel.Full != nil {
		all = append(all, *kernel.Full)
	}
	var own Entry
	for _, entry := range kernel.Frontend {
		if strings.HasPrefix(entry.Set, plan.SetPrefix+f.Class.String()) {
			own = entry
		}
	}
	name := e.pair.From.name()
	switch {
	case !kernel.Source.There:
		e.link("sets", Broken, "%s is not in set %s", kernel.Source.Member, kernel.Source.Set)
		e.decide(ofPath, Bypassed, "%s go past Envoy, to kube-proxy: the kernel's set %s lacks %s, the address of %s: it has expired, or somebody removed it.",
			e.Calls(), kernel.Source.Set, kernel.Source.Member, name)
	case !own.There:
		e.link("sets", Broken, "%s is not in set %s", f.Address, own.Set)
		e.decide(ofPath, Bypassed, "%s go past Envoy, to kube-proxy: the kernel's set %s lacks %s. The agent repairs that within 5 seconds.", e.Calls(), own.Set, f.Address)
	case kernel.Full != nil && kernel.Full.There:
		e.link("sets", Broken, "%s is in set %s: it has more connections, or makes more in a second, than may be redirected", kernel.Full.Member, kernel.Full.Set)
		e.decide(ofPath, Bypassed, "%s, as far as they need new connections, go past Envoy, to kube-proxy: %s is at its limit of redirected connections.", e.Calls(), name)
	default:
		e.link("sets", OK, "%s is in set %s, renewed by the agent, for %s more; %s is in set %s", kernel.Source.Member, kernel.Source.Set,
			kernel.Source.Left.Round(time.Second), f.Address, own.Set)
	}
	e.out.Chain[len(e.out.Chain)-1].Sets = all
}
