// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/model"
)

// maxBackends is how many backends a part of a list of frontends has, but for its first
// frontend, which has all of its own.
const maxBackends = 10_000

// keySeparator is in no name, and sorts before all that is: keys sort as their names do.
const keySeparator = "\x00"

// viewPods lists this node's pods.
func (s *State) viewPods(q view.Query) view.List[view.Pod] {
	out := view.List[view.Pod]{Items: []view.Pod{}}
	s = s.orStarting()
	if s.Node == nil {
		return out
	}
	last := ""
	for i := range s.Node.Pods {
		p := &s.Node.Pods[i]
		key := p.Namespace + keySeparator + p.Name + keySeparator + p.UID
		if key <= q.After || q.Namespace != "" && q.Namespace != p.Namespace {
			continue
		}
		if len(out.Items) == q.Limit {
			out.Continue = last
			break
		}
		out.Items, last = append(out.Items, s.viewPod(p)), key
	}
	return out
}

func (s *State) viewPod(p *model.Pod) view.Pod {
	state := s.pod(p)
	out := view.Pod{
		Namespace: p.Namespace, Name: p.Name, IPs: []string{}, Enrolled: p.Enrolled, Reason: p.Reason,
		Redirected: state.Redirecting, NotRedirected: state.Reason, Netns: state.Netns,
	}
	for _, ip := range p.IPs {
		out.IPs = append(out.IPs, ip.String())
	}
	return out
}

// viewFrontends lists frontends by address.
func (s *State) viewFrontends(q view.Query) (view.List[view.Frontend], error) {
	out := view.List[view.Frontend]{Items: []view.Frontend{}}
	after, err := netip.AddrPort{}, error(nil)
	if q.After != "" {
		if after, err = netip.ParseAddrPort(q.After); err != nil {
			return out, fmt.Errorf("continue is not from an answer about frontends: %w", debug.ErrInvalid)
		}
	}
	s = s.orStarting()
	if s.Node == nil {
		return out, nil
	}
	all := s.Node.Frontends
	first, found := slices.BinarySearchFunc(all, after, func(f *model.Frontend, at netip.AddrPort) int { return f.Address.Compare(at) })
	if found {
		first++
	}
	return s.frontendsOf(all[first:], q), nil
}

// frontendsOf is a part of a list of frontends.
func (s *State) frontendsOf(all []*model.Frontend, q view.Query) view.List[view.Frontend] {
	out := view.List[view.Frontend]{Items: []view.Frontend{}}
	used, backends := s.inUse(), 0
	for _, f := range all {
		if q.Namespace != "" && q.Namespace != f.Port.Namespace || q.Service != "" && q.Service != f.Port.ServiceName() || q.InUse && !used[f.Address] {
			continue
		}
		bypass := s.bypassed(f, used)
		if q.Class != "" && q.Class != cmp.Or(bypassClass(bypass), f.Class.String()) {
			continue
		}
		backends += len(f.Backends)
		if n := len(out.Items); n == q.Limit || n > 0 && backends > maxBackends {
			out.Continue = out.Items[n-1].Address
			break
		}
		out.Items = append(out.Items, viewFrontend(f, used[f.Address], bypass))
	}
	return out
}

// bypassClass is that under which frontends are counted that are left to kube-proxy.
func bypassClass(bypass string) string {
	if bypass == "" {
		return ""
	}
	return "bypass"
}

// bypassed is why a frontend is left to kube-proxy; empty if it is not.
func (s *State) bypassed(f *model.Frontend, used map[netip.AddrPort]bool) string {
	if why := cmp.Or(notRedirected(f), s.short(f, used)); why != "" {
		return why
	}
	if why := s.Envoy.Refused.Frontend(f); why != "" {
		return "Envoy refused " + why
	}
	return ""
}

// notRedirected is why a frontend is left to kube-proxy because of what it is.
func notRedirected(f *model.Frontend) string {
	if f.Bypass == "" && len(f.Backends) == 0 {
		return "no backend is ready; kube-proxy, if the node has one, refuses the connection"
	}
	return f.Bypass
}

func viewFrontend(f *model.Frontend, used bool, bypass string) view.Frontend {
	out := view.Frontend{
		Backends: []view.Backend{},
		Address:  f.Address.String(), Service: f.Port.String(), Class: f.Class.String(),
		Why: f.ClassReason, Bypass: bypass, InUse: used,
	}
	for _, b := range f.Backends {
		backend := view.Backend{Address: b.Address.String(), Node: b.Node, Zone: b.Zone, Terminating: b.Terminating}
		if b.Pod != "" {
			backend.Pod = b.Namespace + "/" + b.Pod
		}
		out.Backends = append(out.Backends, backend)
	}
	return out
}

// serviceKey names a Service.
type serviceKey struct{ namespace, name string }

func keyOf(f *model.Frontend) serviceKey { return serviceKey{f.Port.Namespace, f.Port.Service} }

func (k serviceKey) compare(o serviceKey) int {
	return cmp.Or(strings.Compare(k.namespace, o.namespace), strings.Compare(k.name, o.name))
}

// viewServices lists Services by namespace and name.
func (s *State) viewServices(q view.Query) view.List[view.Service] {
	out := view.List[view.Service]{Items: []view.Service{}}
	s = s.orStarting()
	if s.Node == nil {
		return out
	}
	used := s.inUse()
	var after serviceKey
	after.namespace, after.name, _ = strings.Cut(q.After, keySeparator)
	of := map[serviceKey][]*model.Frontend{}
	for _, f := range s.Node.Frontends {
		k := keyOf(f)
		if (q.Namespace == "" || q.Namespace == k.namespace) && (!q.InUse || used[f.Address]) && k.compare(after) > 0 {
			of[k] = nil
		}
	}
	keys := slices.SortedFunc(maps.Keys(of), serviceKey.compare)
	if len(keys) > q.Limit {
		for _, k := range keys[q.Limit:] {
			delete(of, k)
		}
		keys = keys[:q.Limit]
		last := keys[q.Limit-1]
		out.Continue = last.namespace + keySeparator + last.name
	}
	for _, f := range s.Node.Frontends {
		if all, shown := of[keyOf(f)]; shown {
			of[keyOf(f)] = append(all, f)
		}
	}
	for _, k := range keys {
		out.Items = append(out.Items, s.viewService(of[k], used))
	}
	return out
}

// viewService is a Service that has these frontends.
func (s *State) viewService(all []*model.Frontend, used map[netip.AddrPort]bool) view.Service {
	out := view.Service{Namespace: all[0].Port.Namespace, Name: all[0].Port.Service, Ports: []view.ServicePort{}}
	at := map[model.ServicePort]int{}
	for _, f := range all {
		i, known := at[f.Port]
		if !known {
			i = len(out.Ports)
			at[f.Port] = i
			out.Ports = append(out.Ports, view.ServicePort{Name: f.Port.PortName, Port: f.Port.Port, Class: f.Class.String(), Why: f.ClassReason})
		}
		p := &out.Ports[i]
		p.Addresses = append(p.Addresses, f.Address.String())
		p.Backends = max(p.Backends, len(f.Backends))
		p.InUse = p.InUse || used[f.Address]
		out.InUse = out.InUse || used[f.Address]
		if s.bypassed(f, used) != "" {
			p.Bypassed++
		}
	}
	slices.SortFunc(out.Ports, func(a, b view.ServicePort) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), strings.Compare(a.Name, b.Name))
	})
	return out
}

// viewServiceDetail is one Service, if it has frontends.
func (s *State) viewServiceDetail(namespace, name string) (view.ServiceDetail, bool) {
	s = s.orStarting()
	if s.Node == nil {
		return view.ServiceDetail{}, false
	}
	var all []*model.Frontend
	for _, f := range s.Node.Frontends {
		if f.Port.Namespace == namespace && f.Port.Service == name {
			all = append(all, f)
		}
	}
	if len(all) == 0 {
		return view.ServiceDetail{}, false
	}
	list := s.frontendsOf(all, view.Query{Limit: maxBackends})
	return view.ServiceDetail{Service: s.viewService(all, s.inUse()), Frontends: list.Items, Continue: list.Continue}, true
}
