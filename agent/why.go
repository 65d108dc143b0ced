// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/debug/table"
	"github.com/nodevoy/nodevoy/agent/envoyadmin"
	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/look"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/why"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/server"
)

const (
	// lookTimeout bounds a look at the kernel and Envoy.
	lookTimeout = 5 * time.Second
	// flowsAsked is how many flows of a pair are looked at.
	flowsAsked = 20
)

// explainer answers where calls go, from the last published state and, if it is asked
// to, from a look at the kernel and Envoy.
type explainer struct {
	cfg    Config
	state  *atomic.Pointer[State]
	stuck  func() string
	health func() []kinds.Health
	// standing is how far Envoy is with a resource.
	standing func(xds.Kind, string) server.Standing
	// enter calls a function in a pod's network namespace, by the pod's UID; nil in host
	// mode.
	enter func(uid string, fn func() error) error
	envoy *envoyadmin.Envoy
	flows *flow.Log
}

// answer answers from and to, or flow, with live for a look at the kernel and Envoy. See
// debug.Question.
func (x *explainer) answer(ctx context.Context, query url.Values) (any, error) {
	q := why.Question{From: query.Get("from"), To: query.Get("to")}
	return x.ask(ctx, q, query.Get("flow"), isSet(query.Get("live"), query.Has("live")))
}

// isSet reads a switch of a query, which may have no value.
func isSet(value string, has bool) bool {
	on, err := strconv.ParseBool(value)
	return has && (err != nil || on)
}

// ask answers a question, or about a flow by its number.
func (x *explainer) ask(ctx context.Context, q why.Question, id string, live bool) (why.Answer, error) {
	s := x.state.Load()
	if id != "" {
		asked, err := x.ofFlow(id)
		if err != nil {
			return why.Answer{}, err
		}
		q = asked
	}
	in := x.input(s)
	if s == nil || s.Node == nil {
		answer := why.NotReady(in, q)
		answer.Apply(table.Printable)
		return answer, nil
	}
	pair, err := why.Resolve(s.Node, q)
	if err != nil {
		return why.Answer{}, fmt.Errorf("%w: %s", debug.ErrInvalid, table.Printable(err.Error()))
	}
	x.complete(&in, s, &pair)
	if live {
		in.Live = x.look(ctx, s, &pair, in.XDS)
	}
	answer := why.Explain(in, pair)
	answer.Apply(table.Printable)
	return answer, nil
}

// ofFlow is the question of who called what in a flow.
func (x *explainer) ofFlow(id string) (why.Question, error) {
	number, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return why.Question{}, fmt.Errorf("%w: flow %q is no number", debug.ErrInvalid, id)
	}
	f, ok := x.flows.Get(number)
	if !ok {
		return why.Question{}, fmt.Errorf("flow %d: %w, or no longer kept", number, debug.ErrNotFound)
	}
	from := f.Source.Address.Addr().String()
	if f.Source.Pod != "" {
		from = f.Source.Name()
	}
	return why.Question{From: from, To: f.Frontend.String()}, nil
}

// input is what the state says of any question.
func (x *explainer) input(s *State) why.Input {
	in := why.Input{Now: time.Now(), Agent: why.Agent{Node: x.cfg.NodeName, Starting: true, Reason: "it has just started"}}
	if s == nil {
		return in
	}
	in.Agent = why.Agent{
		Node: x.cfg.NodeName, At: s.At, Reason: s.Reason, Stuck: x.stuck(), Applied: s.Applied, Mode: s.modeText(),
		Redirecting: s.Phase == PhaseRedirecting, Starting: s.Phase == PhaseStarting, Superseded: s.Phase == PhaseSuperseded,
	}
	for _, problem := range []string{s.ApplyErr, s.CheckErr} {
		if problem != "" {
			in.Agent.Errors = append(in.Agent.Errors, problem)
		}
	}
	for _, h := range x.health() {
		if h.Err != nil {
			in.Agent.Errors = append(in.Agent.Errors, fmt.Sprintf("objects of kind %s are not followed: %v", h.Kind, h.Err))
		}
	}
	in.Model, in.Plan, in.Mode, in.Pods = s.Node, s.Plan, s.Mode, map[string]why.PodState{}
	for uid, p := range s.Pods {
		in.Pods[uid] = why.PodState{Redirecting: p.Redirecting, Netns: p.Netns, Reason: p.Reason}
	}
	used := s.usedIfShort()
	in.Short = func(f *model.Frontend) string { return s.short(f, used) }
	in.Refused = s.Envoy.Refused.Frontend
	for _, n := range s.Envoy.Nacks {
		in.Nacks = append(in.Nacks, why.Nack{At: n.At, Type: n.Type, Detail: n.Detail, Names: n.Refused()})
	}
	return in
}

// modeText is the mode of redirection in words.
func (s *State) modeText() string {
	mode := s.Mode.String()
	if s.Mode == plan.HostMode {
		mode += ", by " + s.Findings.Mechanism.String()
	}
	return mode + " (iptables-" + s.Findings.Backend.String() + ")"
}

// complete adds what is about the pair alone.
func (x *explainer) complete(in *why.Input, s *State, pair *why.Pair) {
	f := pair.To.Frontend
	if f == nil || pair.From.Pod == nil {
		return
	}
	path := xds.Explain(x.cfg.XDS, model.PodTarget{Namespace: pair.From.Pod.Namespace, Pod: pair.From.Pod.Name, UID: podUID(pair.From.Pod)}, f)
	in.XDS = why.XDS{Connected: s.Envoy.Connected, Listener: x.resource(xds.KindListener, path.Listener)}
	if path.Route != "" {
		route := x.resource(xds.KindRoute, path.Route)
		in.XDS.Route = &route
	}
	for _, name := range path.Clusters {
		if r := x.resource(xds.KindCluster, name); r.Asked {
			in.XDS.Clusters = append(in.XDS.Clusters, r)
			in.XDS.Endpoints = append(in.XDS.Endpoints, x.resource(xds.KindEndpoints, name))
		}
	}
	in.Flows = x.flows.Last(flowsAsked, flow.Filter{From: pair.From.Namespace + "/" + pair.From.Name, To: f.Address.String()})
	slices.Reverse(in.Flows)
}

func (x *explainer) resource(k xds.Kind, name string) why.Resource {
	st := x.standing(k, name)
	return why.Resource{Name: name, Asked: st.Asked, Sent: st.Sent, Acked: st.Acked, Refused: st.Refused}
}

// look looks at the kernel and at Envoy.
func (x *explainer) look(ctx context.Context, s *State, pair *why.Pair, known why.XDS) *why.Live {
	if pair.To.Frontend == nil || pair.From.Pod == nil || !pair.From.IP.IsValid() {
		return &why.Live{KernelErr: "nothing to look at", ProxyErr: "nothing to ask for"}
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	live := &why.Live{}
	var err error
	if live.Kernel, err = x.lookAtKernel(ctx, s, pair); err != nil {
		live.Kernel, live.KernelErr = nil, err.Error()
	}
	var clusters []string
	for _, c := range known.Clusters {
		clusters = append(clusters, c.Name)
	}
	if live.Proxy, err = look.Envoy(ctx, x.envoy, clusters); err != nil {
		live.ProxyErr = err.Error()
	}
	return live
}

// lookAtKernel looks at the kernel where the pair's rules are.
func (x *explainer) lookAtKernel(ctx context.Context, s *State, pair *why.Pair) (k *why.Kernel, err error) {
	target := look.Target{Backend: s.Findings.Backend, From: pair.From.IP, To: pair.To.Address, InPod: x.enter != nil}
	if target.Trace, err = why.Trace(s.Plan, *pair); err != nil {
		return nil, err
	}
	uid, of := podUID(pair.From.Pod), family.Of(pair.To.Address.Addr())
	var planned bool
	if target.Plan, planned = s.Plan.FamilyOf(uid, of); !planned {
		return nil, errors.New("nothing is planned for this pod and address family")
	}
	if x.enter == nil {
		return look.Kernel(ctx, target)
	}
	err = x.enter(uid, func() error {
		k, err = look.Kernel(ctx, target)
		return err
	})
	return k, err
}
