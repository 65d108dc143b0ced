// SPDX-License-Identifier: Apache-2.0

package why

import (
	"fmt"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/tracer"
)

// explanation is an answer in the making.
type explanation struct {
	*Input
	pair Pair
	out  Answer
	// rank is that of the reason that decided the sentence: lower ones come first.
	rank int
}

// Ranks of reasons. What makes a call fail whoever serves it comes before what nodevoy
// does with it.
const (
	ofAgent = iota + 1
	ofDestination
	ofPath
	undecided
)

// Explain says where the calls of a pair go.
func Explain(in Input, pair Pair) Answer {
	e := &explanation{Input: &in, pair: pair, rank: undecided}
	e.out = Answer{Node: in.Agent.Node, At: in.Now, Live: in.Live != nil, From: pair.From.party(), To: pair.To.party()}
	e.agent()
	if in.Model != nil {
		e.pod()
		e.service()
		if f := pair.To.Frontend; f != nil {
			e.frontend(f)
			e.backends(f)
		}
		e.path(pair.To.Frontend)
	}
	if e.rank == undecided {
		e.through()
	}
	return e.out
}

// NotReady is the answer of an agent that can't resolve the question yet.
func NotReady(in Input, q Question) Answer {
	return Explain(in, Pair{From: Source{Asked: q.From}, To: Destination{Asked: q.To}})
}

func (s *Source) party() Party {
	p := Party{Asked: s.Asked, Namespace: s.Namespace, Name: s.Name}
	if s.IP.IsValid() {
		p.Address = s.IP.String()
	}
	return p
}

func (d *Destination) party() Party {
	p := Party{Asked: d.Asked, Namespace: d.Namespace, Name: d.Name}
	if d.Address.IsValid() {
		p.Address = d.Address.String()
	}
	return p
}

// link adds a link.
func (e *explanation) link(name string, state State, format string, args ...any) *Link {
	e.out.Chain = append(e.out.Chain, Link{Name: name, State: state, Text: fmt.Sprintf(format, args...)})
	return &e.out.Chain[len(e.out.Chain)-1]
}

// decide says where calls go, unless that is decided already by a reason of this rank
// or a lower one.
func (e *explanation) decide(rank int, v Verdict, format string, args ...any) {
	if rank < e.rank {
		e.rank, e.out.Verdict, e.out.Sentence = rank, v, fmt.Sprintf(format, args...)
	}
}

// calls names the calls that the question is about.
func (e *explanation) calls() string {
	return "calls of " + e.pair.From.name() + " to " + e.pair.To.name()
}

// Calls is the same at the beginning of a sentence.
func (e *explanation) Calls() string { return "C" + strings.TrimPrefix(e.calls(), "c") }

// name is what the caller is called in sentences.
func (s *Source) name() string {
	switch {
	case s.Name != "":
		return s.Namespace + "/" + s.Name
	case s.IP.IsValid():
		return s.IP.String()
	}
	return s.Asked
}

// name is what the destination is called: the Service's port with its address.
func (d *Destination) name() string {
	switch {
	case d.Frontend != nil:
		return fmt.Sprintf("%s:%d (%s)", d.Frontend.Port.ServiceName(), d.Frontend.Port.Port, d.Address)
	case d.Address.IsValid():
		return d.Address.String()
	case d.Name != "" && d.PortName != "":
		return d.Namespace + "/" + d.Name + ":" + d.PortName
	case d.Name != "":
		return d.Namespace + "/" + d.Name
	}
	return d.Asked
}

// agent is about the agent that answers.
func (e *explanation) agent() {
	a := &e.Agent
	state, text := OK, "the agent of "+a.Node+" follows all objects"
	switch {
	case a.Starting:
		state, text = Unknown, "the agent of "+a.Node+" has not read all objects yet: "+a.Reason
		e.decide(ofAgent, Unsure, "Can't tell: the agent of %s has not read all Kubernetes objects yet.", a.Node)
	case a.Superseded:
		state, text = Unknown, "a newer agent on "+a.Node+" has taken over"
		e.decide(ofAgent, Unsure, "Can't tell: a newer agent on %s has taken over, which is the one to ask.", a.Node)
	case a.Stuck != "":
		state, text = Broken, "the agent of "+a.Node+" is stuck: "+a.Stuck
		e.decide(ofAgent, Unsure, "Can't tell: the agent of %s is stuck (%s), so that what it knows may be out of date.", a.Node, a.Stuck)
	case len(a.Errors) > 0:
		state, text = Unknown, "not all is well with the agent of "+a.Node+": what follows may be out of date"
	}
	l := e.link("agent", state, "%s; as of %s ago", text, ago(e.Now, a.At))
	l.Evidence = append(l.Evidence, "mode "+a.Mode)
	l.Evidence = append(l.Evidence, a.Errors...)
}

// ago is a time in the past as people say it.
func ago(now, then time.Time) string {
	d := max(0, now.Sub(then))
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// pod is about the caller.
func (e *explanation) pod() {
	s := &e.pair.From
	pod := s.Pod
	if pod == nil {
		e.noPod()
		return
	}
	what := fmt.Sprintf("pod %s", s.name())
	if len(pod.IPs) > 0 {
		var ips []string
		for _, ip := range pod.IPs {
			ips = append(ips, ip.String())
		}
		what += " (" + strings.Join(ips, ", ") + ")"
	}
	reason := own(pod.Reason, pod.Namespace)
	if !pod.Enrolled {
		e.link("pod", Left, "%s is not enrolled: %s", what, reason)
		e.decide(ofPath, Untouched, "nodevoy does not touch this: %s.", notEnrolled(s.name(), reason))
	} else {
		e.link("pod", OK, "%s is enrolled: %s", what, reason)
	}
	l := &e.out.Chain[len(e.out.Chain)-1]
	if s.Workload != "" {
		l.Evidence = append(l.Evidence, fmt.Sprintf("one of %d pods of %s/%s on this node", s.Number, s.Namespace, s.Workload))
	}
	if pod.Terminating {
		l.Evidence = append(l.Evidence, "it is being deleted")
	}
	if f := e.pair.To.Frontend; f != nil && pod.Enrolled && !s.has(f.Address.Addr()) {
		family := "IPv4"
		if f.Address.Addr().Is6() {
			family = "IPv6"
		}
		l.State = Left
		l.Evidence = append(l.Evidence, "it has no "+family+" address")
		e.decide(ofPath, Untouched, "nodevoy does not touch this: pod %s has no %s address to call %s from.", s.name(), family, f.Address)
	}
}

// own names the namespace where the model's reason means the pod's or the Service's own.
func own(reason, namespace string) string {
	switch rest, ok := strings.CutPrefix(reason, "namespace "); {
	case !ok:
		return reason
	case strings.HasPrefix(rest, "label "):
		return "namespace " + namespace + " has the " + rest
	default:
		return "namespace " + namespace + " " + rest
	}
}

// notEnrolled makes a sentence of the reason why a pod is not enrolled.
func notEnrolled(pod, reason string) string {
	switch {
	case strings.HasPrefix(reason, "namespace "):
		return reason
	case strings.HasPrefix(reason, "own label ignored "):
		return "pod " + pod + "'s label is" + strings.TrimPrefix(reason, "own label")
	case strings.HasPrefix(reason, "own label "):
		return "pod " + pod + " has the label" + strings.TrimPrefix(reason, "own label")
	case strings.HasPrefix(reason, "no IP yet"):
		return "pod " + pod + " is too young: it has no IP address yet"
	case strings.HasPrefix(reason, "finished "):
		return "pod " + pod + " is " + reason
	case strings.HasPrefix(reason, "uses "), strings.HasPrefix(reason, "has "), strings.HasPrefix(reason, "declares "):
		return "pod " + pod + " " + reason
	}
	return "pod " + pod + ": " + reason
}

// noPod is about a caller that is no pod of this node.
func (e *explanation) noPod() {
	s := &e.pair.From
	switch {
	case s.Own:
		e.link("pod", Left, "%s is an address of the node itself, or of pods that use its network", s.IP)
		e.decide(ofPath, Untouched, "nodevoy does not touch this: what the node itself sends, and pods that use its network (hostNetwork), is never redirected.")
	case s.Elsewhere != "":
		e.link("pod", Unknown, "%s is on node %s", s.name(), s.Elsewhere)
		e.decide(ofAgent, Unsure, "Can't tell: %s is on node %s, whose agent knows.", s.name(), s.Elsewhere)
	default:
		e.link("pod", Unknown, "no pod, nor workload with pods, of this node is %s", s.name())
		e.decide(ofAgent, Unsure, "Can't tell: %s is no pod of node %s, nor a workload with pods there.", s.name(), e.Agent.Node)
	}
}

// redirectable says whether the rest of the path can be told: an enrolled pod calls a
// frontend that is redirected.
func (e *explanation) redirectable() bool {
	pod, f := e.pair.From.Pod, e.pair.To.Frontend
	return pod != nil && pod.Enrolled && f != nil && e.pair.From.has(f.Address.Addr()) && f.Redirected()
}

// path is about what lies between the pod and its backends.
func (e *explanation) path(f *model.Frontend) {
	if !e.redirectable() {
		if len(e.Flows) > 0 { // Those that the kernel tracks.
			e.flows()
		}
		return
	}
	e.redirection()
	trace, err := Trace(e.Plan, e.pair)
	e.rule(trace, err)
	e.listener(f)
	e.cluster(f)
	e.hosts(f)
	e.refusals()
	e.flows()
}

// Trace follows the first packet of a connection of the pair through the plan's rules.
func Trace(p *plan.Plan, pair Pair) (tracer.Verdict, error) {
	if p == nil || pair.From.Pod == nil || !pair.To.Address.IsValid() {
		return tracer.Verdict{}, nil
	}
	packet := tracer.Packet{From: pair.From.IP, To: pair.To.Address, In: "pod", Out: "pod"}
	if p.Mode == plan.PodMode {
		packet.Pod = pair.From.name()
	}
	return tracer.Trace(p, packet)
}

// through says that calls go through Envoy.
func (e *explanation) through() {
	f := e.pair.To.Frontend
	if f == nil || e.pair.From.Pod == nil {
		e.decide(ofPath, Unsure, "Can't tell where %s go.", e.calls())
		return
	}
	as := map[model.Class]string{
		model.ClassHTTP: "as HTTP", model.ClassTCP: "as plain TCP (" + f.ClassReason + ")", model.ClassDetect: "with their protocol detected (" + f.ClassReason + ")",
	}[f.Class]
	e.decide(ofPath, Envoy, "%s go through Envoy, %s, to %s.", e.Calls(), as, count(len(f.Backends), "backend"))
}

// count is a number of things.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
