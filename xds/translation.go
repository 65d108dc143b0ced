// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Translation is one node, and in pod mode the pods in which Envoy listens, as
// the inputs of every resource that Envoy may request.
type Translation struct {
	node      *model.Node
	listeners *ListenerSpecs
}

// NewTranslation prepares a node. The targets are not used in host mode. before
// are the listeners of an earlier translation, which are shared if they are the
// same; may be nil.
func NewTranslation(cfg Config, node *model.Node, targets []model.PodTarget, before *ListenerSpecs) *Translation {
	if before != nil && slices.Equal(targets, before.targets) {
		return &Translation{node: node, listeners: before}
	}
	return &Translation{node: node, listeners: newListenerSpecs(cfg, targets)}
}

// Listeners are the specs of all listeners.
func (t *Translation) Listeners() *ListenerSpecs { return t.listeners }

// Frontend finds the node's frontend of this address.
func (t *Translation) Frontend(at netip.AddrPort) (*model.Frontend, bool) { return t.node.Frontend(at) }

// Runtime are the inputs of the resource of KindRuntime, with these shares of flows.
func (t *Translation) Runtime(flows FlowShares) Inputs {
	return runtimeInputs{flows: flows, namespaces: t.node.Telemetry}
}

// Inputs are those of a resource; nil if there is none of this name. version
// returns the version of another resource: an assignment holds its cluster's.
func (t *Translation) Inputs(k Kind, name string, version func(Kind, string) string) Inputs {
	switch k {
	case KindListener:
		if spec, ok := t.listeners.ByName[name]; ok {
			return spec
		}
	case KindRoute:
		return routesOf(name, t.node.Telemetry)
	case KindCluster, KindEndpoints:
		n, ok := parseClusterName(name)
		if !ok {
			return nil
		}
		f, ok := t.node.Frontend(n.frontend)
		if !ok || f.Bypass != "" {
			return nil
		}
		if k == KindCluster {
			return clusterInputs{name: n, port: f.Port}
		}
		return endpointsInputs{name: n, backends: f.Backends, clusterVersion: version(KindCluster, name)}
	}
	return nil
}

// ListenerSpecs are those of all listeners. They never change once made.
type ListenerSpecs struct {
	targets []model.PodTarget
	// Names are the listeners' names, sorted.
	Names []string
	// ByName are the specs by the listener's name.
	ByName map[string]ListenerSpec
}

// routeNames are those of the routes that the listeners need, sorted; that of the node's
// in any case where no namespace has its own.
func (s *ListenerSpecs) routeNames(cfg Config) []string {
	names := map[string]bool{}
	if !cfg.byNamespace() || !cfg.tracing() {
		names[RouteName] = true
	}
	for _, spec := range s.ByName {
		names[spec.RouteName(cfg)] = true
	}
	return sortedKeys(names)
}

// newListenerSpecs makes the specs of all listeners: in host mode one for each
// capture class and address family, in pod mode one for each capture class and
// pod. No Service changes one.
func newListenerSpecs(cfg Config, targets []model.PodTarget) *ListenerSpecs {
	var specs []ListenerSpec
	for _, class := range model.Classes() {
		if cfg.PodMode {
			for _, t := range targets {
				specs = append(specs, ListenerSpec{Class: class, Target: t})
			}
			continue
		}
		for _, addr := range cfg.addresses() {
			specs = append(specs, ListenerSpec{Class: class, Addr: addr})
		}
	}
	s := &ListenerSpecs{targets: slices.Clone(targets), ByName: map[string]ListenerSpec{}}
	for _, spec := range specs {
		if len(spec.addresses(cfg)) > 0 {
			s.ByName[spec.Name()] = spec
		}
	}
	s.Names = slices.Sorted(maps.Keys(s.ByName))
	return s
}
