// SPDX-License-Identifier: Apache-2.0

package why

import (
	"fmt"
	"time"
)

// Alone is what is known where no agent answers.
type Alone struct {
	Now  time.Time
	Node string
	// Unanswered is why the agent gives no answer.
	Unanswered string
	// EnvoyErr is why Envoy does not serve connections; empty if it does.
	EnvoyErr string
	// Redirected are the addresses that the kernel redirects: of the one that was asked
	// about, or of all. KernelErr is why there may be others.
	Redirected []Redirected
	KernelErr  string
}

// Redirected is an address that is redirected without an agent.
type Redirected struct {
	Entry
	// Where is the network namespace.
	Where string
	// Destination is what was called in the sets there, if it was an address.
	Destination []Entry
}

// ExplainAlone says where calls go as far as that can be told without an agent.
func ExplainAlone(a *Alone, q Question) Answer {
	e := &explanation{Input: &Input{Now: a.Now}, rank: undecided}
	e.out = Answer{Node: a.Node, At: a.Now, Live: true, From: Party{Asked: q.From}, To: Party{Asked: q.To}}
	e.link("agent", Broken, "%s", oneLine(a.Unanswered))
	var longest time.Duration
	in, listed := false, false
	l := e.link("sets", Left, "no address is redirected any more")
	for _, r := range a.Redirected {
		longest = max(longest, r.Left)
		l.Sets = append(l.Sets, r.Entry)
		l.Evidence = append(l.Evidence, fmt.Sprintf("%s is redirected in %s, for %s", r.Member, r.Where, r.Left))
		for _, d := range r.Destination {
			listed, in = true, in || d.There
			l.Sets = append(l.Sets, d)
		}
	}
	switch {
	case a.KernelErr != "":
		l.State, l.Text = Unknown, "the kernel can't be read: "+oneLine(a.KernelErr)
	case len(a.Redirected) > 0:
		l.State, l.Text = OK, fmt.Sprintf("%s redirected, for %s at most unless an agent renews that", addresses(len(a.Redirected)), longest)
	}
	if a.EnvoyErr == "" {
		e.link("envoy", OK, "Envoy serves connections")
	} else {
		e.link("envoy", Broken, "Envoy does not serve connections: %s", oneLine(a.EnvoyErr))
	}
	switch {
	case a.KernelErr != "":
		e.decide(ofAgent, Unsure, "Can't tell: the agent of this node does not answer, and the kernel can't be read.")
	case len(a.Redirected) == 0:
		e.decide(ofAgent, Bypassed, "Calls go past Envoy, to kube-proxy: the agent of this node does not answer, and nothing that it left redirects them any more.")
	case listed && !in:
		e.decide(ofAgent, Bypassed, "Calls go past Envoy, to kube-proxy: the agent of this node does not answer, and the kernel does not redirect calls to %s.", q.To)
	case a.EnvoyErr != "":
		e.decide(ofAgent, Fails, "Calls fail for up to %s: the agent of this node does not answer, Envoy does not serve, and the kernel still redirects %s to it. Then they go to kube-proxy.",
			longest, addresses(len(a.Redirected)))
	default:
		e.decide(ofAgent, Unsure, "The agent of this node does not answer. What it left redirects %s to Envoy, for %s more; then calls go to kube-proxy.",
			addresses(len(a.Redirected)), longest)
	}
	return e.out
}

func addresses(n int) string {
	if n == 1 {
		return "1 address"
	}
	return fmt.Sprintf("%d addresses", n)
}
