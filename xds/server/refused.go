// SPDX-License-Identifier: Apache-2.0

package server

import (
	"maps"
	"net/netip"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

// Refused is what an Envoy does not have as it is now, because it refused it:
// what is concerned, and the reason, which names the resources. It never changes
// once made. What is not in it, Envoy serves as published.
type Refused struct {
	// Frontends are those whose cluster or endpoints are refused.
	Frontends map[netip.AddrPort]string
	// Pods are those, by UID, of which any listener is refused, in pod mode. A
	// pod needs all of its listeners: connections would be sent to each.
	Pods map[string]string
	// Listeners are the refused listeners of host mode.
	Listeners map[ListenerKey]string
	// Routes is the reason why the routes are refused; empty if they are not.
	// Listeners of class tcp do without them.
	Routes string
}

// ListenerKey says which frontends a listener of host mode is for: those of one
// class and one address family.
type ListenerKey struct {
	Class model.Class
	V6    bool
}

// Any says whether anything is refused.
func (r Refused) Any() bool {
	return len(r.Frontends)+len(r.Pods)+len(r.Listeners) > 0 || r.Routes != ""
}

// Equal says whether the same is refused, for the same reasons.
func (r Refused) Equal(o Refused) bool {
	return r.Routes == o.Routes && maps.Equal(r.Frontends, o.Frontends) && maps.Equal(r.Pods, o.Pods) && maps.Equal(r.Listeners, o.Listeners)
}

// Frontend is the reason why Envoy can't serve a frontend, whichever pod calls
// it; empty if it can.
func (r Refused) Frontend(f *model.Frontend) string {
	if why := r.Frontends[f.Address]; why != "" {
		return why
	}
	if f.Class != model.ClassTCP && r.Routes != "" {
		return r.Routes
	}
	return r.Listeners[ListenerKey{Class: f.Class, V6: f.Address.Addr().Is6()}]
}

// add notes that the resource of this name is refused. spec is the listener's, if
// it is one.
func (r *Refused) add(k xds.Kind, name, why string, spec xds.ListenerSpec) {
	why = k.String() + " " + name + ": " + why
	switch {
	case k == xds.KindRoute:
		r.Routes = why
	case k != xds.KindListener:
		if frontend, ok := xds.FrontendOf(name); ok {
			join(&r.Frontends, frontend, why)
		}
	case spec.Addr.IsValid():
		join(&r.Listeners, ListenerKey{Class: spec.Class, V6: spec.Addr.Is6()}, why)
	default:
		join(&r.Pods, spec.Target.UID, why)
	}
}

// join adds a reason to those that a map has for the key.
func join[K comparable](reasons *map[K]string, key K, why string) {
	if *reasons == nil {
		*reasons = map[K]string{}
	}
	if before := (*reasons)[key]; before != "" && before != why {
		why = before + "; " + why
	}
	(*reasons)[key] = why
}
