// SPDX-License-Identifier: Apache-2.0

package server

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/nodevoy/nodevoy/xds"
)

// resource is one Envoy resource and what it was made of.
type resource struct {
	xds.Resource
	inputs xds.Inputs
}

// translation gives the inputs of resources. See xds.Translation.
type translation interface {
	Inputs(k xds.Kind, name string, version func(xds.Kind, string) string) xds.Inputs
	Listeners() *xds.ListenerSpecs
}

// snapshot is what is served since one Publish. Its resources are made when
// first asked for, and taken over from the snapshot before when their inputs
// are equal. It is not safe for concurrent use.
type snapshot struct {
	cfg xds.Config
	translation
	// override, for tests, may change a message before it is packed.
	override func(name string, m proto.Message)
	before   *snapshot
	made     [xds.KindCount]map[string]*resource
}

// newSnapshot prepares a translation for serving; before, which may be nil, is
// the snapshot that it replaces.
func newSnapshot(cfg xds.Config, t translation, before *snapshot) *snapshot {
	s := &snapshot{cfg: cfg, translation: t, before: before}
	for k := range s.made {
		n := 0
		if before != nil {
			n = len(before.made[k])
		}
		s.made[k] = make(map[string]*resource, n)
	}
	return s
}

// resource returns the one of this kind and name, or nil if there is none.
func (s *snapshot) resource(k xds.Kind, name string) *resource {
	if r := s.made[k][name]; r != nil {
		return r
	}
	inputs := s.Inputs(k, name, s.version)
	if inputs == nil {
		// Names that do not exist are not remembered: there is no end to them.
		return nil
	}
	r := &resource{inputs: inputs}
	if old := s.old(k, name); old != nil && old.inputs.Equal(inputs) {
		// With the new inputs: the old ones hold on to the node they are from.
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

// old is the resource as the snapshot before had it, if it may be taken over.
func (s *snapshot) old(k xds.Kind, name string) *resource {
	if s.before == nil || s.override != nil {
		return nil
	}
	return s.before.made[k][name]
}

// version is that of a resource, and empty if there is none.
func (s *snapshot) version(k xds.Kind, name string) string {
	if r := s.resource(k, name); r != nil {
		return r.Version
	}
	return ""
}

// sortedKeys are the keys of a set, in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
