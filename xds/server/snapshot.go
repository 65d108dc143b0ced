// SPDX-License-Identifier: Apache-2.0

package server

import (
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

// resource is one Envoy resource and what it was made of.
type resource struct {
	xds.Resource
	inputs xds.Inputs
}

// resources are those of each kind, by name.
type resources [xds.KindCount]map[string]*resource

// translation gives the inputs of resources. See xds.Translation.
type translation interface {
	Inputs(k xds.Kind, name string, version func(xds.Kind, string) string) xds.Inputs
	Runtime(flows xds.FlowShares) xds.Inputs
	Listeners() *xds.ListenerSpecs
	Frontend(at netip.AddrPort) (*model.Frontend, bool)
}

// snapshot is what is served since one Publish. A resource is made when it is
// first requested, or taken from the snapshot before if its inputs are equal.
// It is not safe for concurrent use.
type snapshot struct {
	cfg xds.Config
	translation
	// override, for tests, may change a message before it is packed.
	override     func(name string, m proto.Message)
	before, made resources
	// runtime says which flows Envoy sends.
	runtime xds.FlowShares
}

// newSnapshot prepares a translation for serving. before are the resources of the
// snapshot that it replaces.
func newSnapshot(cfg xds.Config, t translation, before resources) *snapshot {
	s := &snapshot{cfg: cfg, translation: t, before: before}
	for k := range s.made {
		s.made[k] = make(map[string]*resource, len(before[k]))
	}
	return s
}

// resource returns the one of this kind and name, or nil if there is none.
func (s *snapshot) resource(k xds.Kind, name string) *resource {
	if r := s.made[k][name]; r != nil {
		return r
	}
	inputs := s.Inputs(k, name, s.version)
	if k == xds.KindRuntime && name == xds.RuntimeName {
		inputs = s.Runtime(s.runtime)
	}
	if inputs == nil {
		// Not stored: clients may request any number of names that don't exist.
		return nil
	}
	r := &resource{inputs: inputs}
	if old := s.before[k][name]; old != nil && s.override == nil && old.inputs.Equal(inputs) {
		// With the new inputs: the old ones refer to the node that they are from.
		r.Resource = old.Resource
	} else {
		m := inputs.Message(s.cfg)
		if s.override != nil {
			s.override(name, m)
		}
		r.Resource = xds.NewResource(m)
	}
	s.made[k][name] = r
	return r
}

// version is that of a resource, and absent if there is none.
func (s *snapshot) version(k xds.Kind, name string) string {
	if r := s.resource(k, name); r != nil {
		return r.Version
	}
	return absent
}

// sortedKeys are the keys of a map, in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
