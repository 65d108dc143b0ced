// SPDX-License-Identifier: Apache-2.0

package advise

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/model"
)

// Long is the age from which a connection is long-lived, unless something else is asked.
const Long = 30 * time.Second

// Input is what an Advice is made of.
type Input struct {
	// Node is the node's view; not nil.
	Node *model.Node
	Now  time.Time
	// Open are the connections of the node's pods that are open and not redirected, with
	// names: one by one, as there may be very many. Their Time is zero if it is not known
	// when they began.
	Open iter.Seq[*flow.Flow]
	// Flows are the last ones; those of Envoy are passed over.
	Flows []flow.Flow
	// Long is the age from which a connection is long-lived.
	Long time.Duration
	Note string
}

// Advise makes the Advice. Its lists are sorted, and never nil.
func Advise(in Input) Advice {
	a := Advice{Node: in.Node.Name, At: in.Now, Note: in.Note, Stuck: []Stuck{}, Services: []Service{}, Namespaces: namespaces(in.Node)}
	ports := map[flow.Service]*calls{}
	fits := map[string]string{}
	for _, pod := range in.Node.IfLabelled() {
		if !pod.Enrolled {
			fits[pod.Namespace+"/"+pod.Name] = pod.Reason
		}
	}
	for f := range in.Open {
		if f.Protocol == "TCP" && f.Service.Name != "" {
			a.Connections++
			of(ports, f).open(f, in)
		}
	}
	for i := range in.Flows {
		if f := &in.Flows[i]; f.Origin == flow.OriginKernel && f.Open && f.Protocol == "TCP" && f.Service.Name != "" {
			of(ports, f).began(f)
		}
	}
	for _, c := range ports {
		frontend, ok := in.Node.Frontend(c.frontend)
		if !ok {
			continue
		}
		a.Services = append(a.Services, c.service(frontend))
		for _, held := range c.held {
			if s, stuck := held.stuck(frontend, fits[held.caller.Namespace+"/"+held.caller.Pod]); stuck {
				a.Stuck = append(a.Stuck, s)
			}
		}
	}
	slices.SortFunc(a.Services, func(x, y Service) int { return compareServices(x.Service, y.Service) })
	slices.SortFunc(a.Stuck, func(x, y Stuck) int {
		return cmp.Or(cmp.Compare(x.Caller.Name(), y.Caller.Name()), compareServices(x.Service, y.Service))
	})
	return a
}

func compareServices(x, y flow.Service) int { return cmp.Compare(x.String(), y.String()) }

// stuck says whether the held connections, of which there are several kinds of backends,
// all lead to one.
func (h *held) stuck(f *model.Frontend, unfit string) (Stuck, bool) {
	if h.long == 0 || h.elsewhere || f.Bypass != "" || len(f.Backends) < 2 {
		return Stuck{}, false
	}
	s := Stuck{
		Caller: h.caller, Service: h.service, Backend: h.backend, Connections: h.long, Backends: len(f.Backends),
		Would: would(f, unfit),
	}
	if h.known {
		s.Since = &h.since
	}
	return s, true
}

// would says what becomes of connections to the frontend of a pod that is enrolled; unfit
// is why it can't be.
func would(f *model.Frontend, unfit string) string {
	n := len(f.Backends)
	switch {
	case unfit != "":
		return "nothing: the pod can't be enrolled by its namespace's label: " + unfit
	case f.Class == model.ClassHTTP:
		return fmt.Sprintf("each request would go to one of the %d backends", n)
	case f.Class == model.ClassDetect:
		return fmt.Sprintf("each request would go to one of the %d backends, if it is HTTP", n)
	}
	return "nothing: of plain TCP, each connection keeps its backend; if it is HTTP or gRPC, say so by appProtocol"
}

// namespaces says of each namespace what its label would do.
func namespaces(node *model.Node) []Namespace {
	all := []Namespace{}
	for i, pod := range node.IfLabelled() { // Sorted as node.Pods are.
		if len(all) == 0 || all[len(all)-1].Namespace != pod.Namespace {
			all = append(all, Namespace{Namespace: pod.Namespace, Enrolled: []string{}, Would: []string{}, Others: []Pod{}})
		}
		n := &all[len(all)-1]
		switch {
		case node.Pods[i].Enrolled:
			n.Enrolled = append(n.Enrolled, pod.Name)
		case pod.Enrolled:
			n.Would = append(n.Would, pod.Name)
		default:
			n.Others = append(n.Others, Pod{pod.Name, pod.Reason})
		}
	}
	return all
}
