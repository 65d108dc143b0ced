// SPDX-License-Identifier: Apache-2.0

package why

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nodevoy/nodevoy/agent/model"
)

// service is about what is called.
func (e *explanation) service() {
	d := &e.pair.To
	switch d.kind {
	case isFrontend:
		l := e.link("service", OK, "%s is port %s of Service %s", d.Address, portText(d.Frontend.Port), d.Frontend.Port.ServiceName())
		for _, other := range d.Others {
			l.Evidence = append(l.Evidence, "also at "+other.Address.String())
		}
	case isNoService:
		e.noService()
	case isNoHost:
		e.link("service", Left, "%s is not the name of a Service", d.Asked)
		e.decide(ofPath, Untouched, "nodevoy does not touch this: %s is not the name of a Service.", d.Asked)
	case isNoPort:
		e.link("service", Broken, "Service %s/%s has no port %s; it has %s", d.Namespace, d.Name, d.PortName, portList(d.Service))
		e.decide(ofDestination, Fails, "Calls of %s to %s fail: Service %s/%s has no port %s. It has %s.",
			e.pair.From.name(), d.name(), d.Namespace, d.Name, d.PortName, portList(d.Service))
	case isNotTCP:
		e.link("service", Left, "port %d of Service %s/%s is %s", d.Port, d.Namespace, d.Name, d.PortName)
		e.decide(ofPath, Untouched, "nodevoy does not touch this: port %d of Service %s/%s is %s, and only TCP is redirected.", d.Port, d.Namespace, d.Name, d.PortName)
	case isHeadless:
		e.link("service", Left, "Service %s/%s is headless: it has no address, and DNS gives its clients those of the pods", d.Namespace, d.Name)
		e.decide(ofPath, Untouched, "nodevoy does not touch this: Service %s/%s is headless, so that its clients call pods' addresses.", d.Namespace, d.Name)
	case isExternal:
		e.link("service", Left, "Service %s/%s is of type ExternalName: DNS gives its clients another name", d.Namespace, d.Name)
		e.decide(ofPath, Untouched, "nodevoy does not touch this: Service %s/%s is of type ExternalName, so that its clients call something else.", d.Namespace, d.Name)
	case isAddressless:
		l := e.link("service", Broken, "Service %s/%s has no address of its own at port %d", d.Namespace, d.Name, d.Port)
		l.Evidence = e.problems("Service", d.Namespace, d.Name)
		e.decide(ofDestination, Fails, "Calls of %s to %s/%s fail: the Service has no address of its own.", e.pair.From.name(), d.Namespace, d.Name)
	default:
		e.plainAddress()
	}
}

func portText(p model.ServicePort) string {
	text := strconv.Itoa(int(p.Port))
	if p.PortName != "" {
		text += " (" + p.PortName + ")"
	}
	return text
}

func (e *explanation) noService() {
	d := &e.pair.To
	text := fmt.Sprintf("there is no Service %s/%s", d.Namespace, d.Name)
	hint := ""
	if len(d.Similar) > 0 {
		hint = " Is " + strings.Join(d.Similar, " or ") + " meant?"
	}
	if !e.Model.HasNamespace(d.Namespace) {
		text += fmt.Sprintf(", nor a namespace %s", d.Namespace)
	}
	l := e.link("service", Broken, "%s", text)
	if hint != "" {
		l.Evidence = []string{"similar: " + strings.Join(d.Similar, ", ")}
	}
	e.decide(ofDestination, Fails, "Calls of %s to %s fail: %s.%s", e.pair.From.name(), d.name(), text, hint)
}

// plainAddress is about an address that is no Service's.
func (e *explanation) plainAddress() {
	d := &e.pair.To
	what := "no Service's address"
	switch d.kind {
	case isPod:
		what = "the address of pod " + d.Owner.Namespace + "/" + d.Owner.Pod + ", and not of a Service"
	case isNode:
		what = "an address of node " + d.Owner.Node + "; node ports are not redirected"
	}
	e.link("service", Left, "%s is %s", d.Address.Addr(), what)
	e.decide(ofPath, Untouched, "nodevoy does not touch this: %s is %s.", d.Address.Addr(), what)
}

// problems are what is wrong with an object.
func (e *explanation) problems(kind, namespace, name string) []string {
	var lines []string
	for _, p := range e.Model.Problems {
		if p.Kind == kind && p.Namespace == namespace && p.Name == name {
			lines = append(lines, p.Field+" "+p.Detail)
		}
	}
	return lines
}

// frontend is about how the Service's port is treated.
func (e *explanation) frontend(f *model.Frontend) {
	at := fmt.Sprintf("%s:%d (%s)", f.Port.ServiceName(), f.Port.Port, f.Address)
	switch {
	case f.Bypass != "":
		why := own(f.Bypass, f.Port.Namespace)
		e.link("frontend", Left, "%s is left to kube-proxy: %s", f.Address, why)
		e.decide(ofPath, Untouched, "nodevoy does not touch this: it leaves %s to kube-proxy: %s.", at, why)
	case e.Short != nil && e.Short(f) != "":
		e.link("frontend", Broken, "%s is left to kube-proxy: %s", f.Address, e.Short(f))
		e.decide(ofPath, Bypassed, "%s go past Envoy, to kube-proxy: %s.", e.Calls(), e.Short(f))
	case e.Refused != nil && e.Refused(f) != "":
		e.link("frontend", Broken, "%s is left to kube-proxy: Envoy refused %s", f.Address, e.Refused(f))
		e.decide(ofPath, Bypassed, "%s go past Envoy, to kube-proxy: Envoy refused %s.", e.Calls(), e.Refused(f))
	default:
		e.link("frontend", OK, "class %s: %s", f.Class, f.ClassReason)
	}
	l := &e.out.Chain[len(e.out.Chain)-1]
	l.Evidence = e.problems("Service", f.Port.Namespace, f.Port.Service)
}

// backends are about the Service's endpoints.
func (e *explanation) backends(f *model.Frontend) {
	all := e.Model.Candidates(f)
	used := 0
	var shown []Backend
	for _, c := range all {
		b := Backend{Address: c.Address.String(), Node: c.Node, Zone: c.Zone, Used: c.Used, Why: c.Why}
		if c.Pod != "" {
			b.Pod = c.Namespace + "/" + c.Pod
		}
		if c.Used {
			used++
		}
		if e.Live != nil && e.Live.Proxy != nil {
			b.Seen = worst(e.Live.Proxy.Hosts[c.Address])
		}
		shown = append(shown, b)
	}
	l := e.link("backends", OK, "%d of %s used by this node", used, count(len(all), "endpoint"))
	l.Backends = shown
	if used > 0 {
		return
	}
	l.State = Broken
	why := "none of its " + count(len(all), "endpoint") + " is ready"
	switch {
	case len(all) == 0:
		why = "it has no endpoints"
	case onlyElsewhere(all):
		why = "internalTrafficPolicy is Local, and none of its " + count(len(all), "endpoint") + " is on this node"
	}
	if f.Bypass == "" {
		e.decide(ofDestination, Fails, "%s fail: %s. kube-proxy, if the node has one, refuses them.", e.Calls(), why)
	}
}

// onlyElsewhere says whether endpoints are left out for being on other nodes alone.
func onlyElsewhere(all []model.Candidate) bool {
	for i := range all {
		if !strings.Contains(all[i].Why, "internalTrafficPolicy is Local") {
			return false
		}
	}
	return true
}

// worst is the worst of what Envoy's clusters say of a backend.
func worst(hosts []Host) *Host {
	var found *Host
	for i := range hosts {
		if found == nil || found.Healthy && !hosts[i].Healthy {
			found = &hosts[i]
		}
	}
	return found
}
