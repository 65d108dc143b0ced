// SPDX-License-Identifier: Apache-2.0

package why

import (
	"time"
)

// Verdict is where calls go.
type Verdict string

// The verdicts.
const (
	// Envoy: they go through Envoy.
	Envoy Verdict = "envoy"
	// Untouched: nodevoy leaves them alone, as somebody said or as it always does.
	Untouched Verdict = "untouched"
	// Bypassed: they are to go through Envoy, and go past it for now.
	Bypassed Verdict = "bypassed"
	// Fails: they fail, whoever serves them.
	Fails Verdict = "fails"
	// Unsure: it can't be told.
	Unsure Verdict = "unknown"
)

// State is the state of one link of the chain.
type State string

// The states.
const (
	// OK: the link holds.
	OK State = "ok"
	// Left: nodevoy's part ends here, as it should.
	Left State = "left"
	// Broken: here it breaks.
	Broken State = "broken"
	// Unknown: it can't be told, or nobody has looked.
	Unknown State = "unknown"
)

// Answer is the answer to one question. Fields are only ever added.
type Answer struct {
	Verdict  Verdict `json:"verdict"`
	Sentence string  `json:"sentence"`
	// Node is the node that answers, At when.
	Node string    `json:"node"`
	At   time.Time `json:"at"`
	// From and To are what the question was understood to be about.
	From Party `json:"from"`
	To   Party `json:"to"`
	// Live says that the kernel and Envoy were looked at.
	Live  bool   `json:"live"`
	Chain []Link `json:"chain"`
}

// Party is one end of a call.
type Party struct {
	Asked string `json:"asked"`
	// Namespace and Name are of a pod or, of a destination, of a Service.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Address is an IP, with a port for a destination.
	Address string `json:"address,omitempty"`
}

// Link is one thing on the way that decides where calls go.
type Link struct {
	// Name is one of agent, pod, service, frontend, backends, redirection, sets, rule,
	// listener, cluster, envoy, refused and flows.
	Name  string `json:"name"`
	State State  `json:"state"`
	Text  string `json:"text"`
	// Evidence are further facts, one a line.
	Evidence []string  `json:"evidence,omitempty"`
	Rule     *Rule     `json:"rule,omitempty"`
	Sets     []Entry   `json:"sets,omitempty"`
	Backends []Backend `json:"backends,omitempty"`
}

// Rule is the rule that takes the connections.
type Rule struct {
	Table  string `json:"table"`
	Chain  string `json:"chain"`
	Spec   string `json:"spec"`
	Reason string `json:"reason"`
	// Packets are how many first packets it has matched; absent if nobody looked.
	Packets *uint64 `json:"packets,omitempty"`
}

// Entry is an address in a set of the kernel's, or missing from it.
type Entry struct {
	Set    string `json:"set"`
	Member string `json:"member"`
	There  bool   `json:"there"`
	// Missing says that there is no such set at all.
	Missing bool `json:"missing,omitempty"`
	// Left is how long it stays; 0 for ever.
	Left time.Duration `json:"leftNanoseconds,omitempty"`
}

// Backend is one endpoint of the Service's port.
type Backend struct {
	Address string `json:"address"`
	Pod     string `json:"pod,omitempty"`
	Node    string `json:"node,omitempty"`
	Zone    string `json:"zone,omitempty"`
	// Used says whether this node is to use it, Why why or why not.
	Used bool   `json:"used"`
	Why  string `json:"why"`
	// Seen is how Envoy has it; absent if it has not, or nobody looked.
	Seen *Host `json:"envoy,omitempty"`
}

// Host is a backend as one of Envoy's clusters has it.
type Host struct {
	Cluster string `json:"cluster"`
	Healthy bool   `json:"healthy"`
	// Ejected says that Envoy's outlier detection has taken it out.
	Ejected bool `json:"ejected,omitempty"`
	// Flags are Envoy's words for what is wrong.
	Flags  []string `json:"flags,omitempty"`
	Weight uint32   `json:"weight"`
	// Active are the connections to it now, Total and Failed the requests, or
	// connections of plain TCP, so far.
	Active uint64 `json:"active"`
	Total  uint64 `json:"total"`
	Failed uint64 `json:"failed"`
}

// Apply has a function change every text, to escape it for where it is shown.
func (a *Answer) Apply(f func(string) string) {
	texts := []*string{
		&a.Sentence, &a.Node, &a.From.Asked, &a.From.Namespace, &a.From.Name, &a.From.Address, &a.To.Asked, &a.To.Namespace, &a.To.Name, &a.To.Address,
	}
	for i := range a.Chain {
		l := &a.Chain[i]
		texts = append(texts, &l.Text)
		for j := range l.Evidence {
			texts = append(texts, &l.Evidence[j])
		}
		if l.Rule != nil {
			texts = append(texts, &l.Rule.Spec, &l.Rule.Reason)
		}
		for j := range l.Backends {
			b := &l.Backends[j]
			texts = append(texts, &b.Address, &b.Pod, &b.Node, &b.Zone, &b.Why)
		}
	}
	for _, t := range texts {
		*t = f(*t)
	}
}
