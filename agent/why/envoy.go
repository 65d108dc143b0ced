// SPDX-License-Identifier: Apache-2.0

package why

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/agent/model"
)

// listener is about Envoy's listener for the connections.
func (e *explanation) listener(f *model.Frontend) {
	r := &e.XDS.Listener
	switch {
	case !e.XDS.Connected:
		e.link("listener", Broken, "no Envoy is connected to the agent")
		return
	case r.Refused != "":
		e.link("listener", Broken, "Envoy refused %s: %s", r.Name, r.Refused)
		e.decide(ofPath, Fails, "%s may fail: Envoy refused its listener %s: %s.", e.Calls(), r.Name, r.Refused)
		return
	case !r.Acked:
		e.link("listener", Unknown, "%s: %s", r.Name, r.standing())
		return
	}
	l := e.link("listener", OK, "%s: %s", r.Name, r.standing())
	if route := e.XDS.Route; route != nil && f.Class != model.ClassTCP {
		l.Evidence = append(l.Evidence, fmt.Sprintf("route %s: %s", route.Name, route.standing()))
	}
	if p := e.proxy(); p != nil && !slices.Contains(p.Listeners, r.Name) {
		l.State = Broken
		l.Text = "Envoy has no listener " + r.Name
		e.decide(ofPath, Fails, "%s fail: Envoy has no listener %s, to which the kernel sends them.", e.Calls(), r.Name)
	}
}

// proxy is what Envoy was seen to have; nil if it was not looked at.
func (e *explanation) proxy() *Proxy {
	if e.Live == nil || e.Live.ProxyErr != "" {
		return nil
	}
	return e.Live.Proxy
}

// standing is how far Envoy is with a resource.
func (r *Resource) standing() string {
	switch {
	case r.Refused != "":
		return "refused: " + r.Refused
	case r.Acked:
		return "sent and accepted"
	case r.Sent:
		return "sent, not answered yet"
	case r.Asked:
		return "asked for, not sent yet"
	}
	return "not asked for"
}

// cluster is about the clusters of the frontend.
func (e *explanation) cluster(f *model.Frontend) {
	if !e.XDS.Connected {
		return
	}
	if len(e.XDS.Clusters) == 0 {
		e.link("cluster", OK, "Envoy has not asked for %s yet: it loads a cluster at the first connection", f.Address)
		return
	}
	l := e.link("cluster", OK, "Envoy has %s of %s", count(len(e.XDS.Clusters), "cluster"), f.Address)
	for _, r := range slices.Concat(e.XDS.Clusters, e.XDS.Endpoints) {
		switch {
		case r.Refused != "":
			l.State = Broken
		case !r.Acked && l.State == OK:
			l.State = Unknown
		}
	}
	for i := range e.XDS.Clusters {
		l.Evidence = append(l.Evidence, fmt.Sprintf("cluster %q: %s", e.XDS.Clusters[i].Name, e.XDS.Clusters[i].standing()))
	}
	for i := range e.XDS.Endpoints {
		l.Evidence = append(l.Evidence, fmt.Sprintf("endpoints %q: %s", e.XDS.Endpoints[i].Name, e.XDS.Endpoints[i].standing()))
	}
}

// hosts are about the backends as Envoy has them.
func (e *explanation) hosts(f *model.Frontend) {
	p := e.proxy()
	if p == nil {
		text := "not looked at (--live)"
		if e.Live != nil {
			text = "can't be asked: " + e.Live.ProxyErr
		}
		e.link("envoy", Unknown, "%s", text)
		return
	}
	if len(p.Clusters) == 0 {
		e.link("envoy", OK, "Envoy has no cluster of %s yet", f.Address)
		return
	}
	var absent, bad, ejected []string
	for i := range f.Backends {
		at := f.Backends[i].Address
		switch h := worst(p.Hosts[at]); {
		case h == nil:
			absent = append(absent, at.String())
		case h.Ejected:
			ejected = append(ejected, at.String())
		case !h.Healthy:
			bad = append(bad, at.String()+" ("+strings.Join(h.Flags, ", ")+")")
		}
	}
	all := len(f.Backends)
	good := all - len(absent) - len(bad) - len(ejected)
	l := e.link("envoy", OK, "%d of %s in use", good, count(all, "backend"))
	for what, list := range map[string][]string{"Envoy has not": absent, "unhealthy": bad, "ejected": ejected} {
		if len(list) > 0 {
			l.Evidence = append(l.Evidence, what+": "+strings.Join(list, ", "))
		}
	}
	slices.Sort(l.Evidence)
	switch {
	case good > 0:
	case len(ejected) == all:
		l.State = Broken
		e.decide(ofPath, Fails, "%s fail, most likely: Envoy has ejected all %s, as they answered with errors.", e.Calls(), count(all, "backend"))
	default:
		l.State = Broken
		e.decide(ofPath, Fails, "%s fail, most likely: Envoy takes none of %s for usable.", e.Calls(), count(all, "backend"))
	}
}
