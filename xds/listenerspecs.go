// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/agent/model"
)

// PodListener names the listener of one class in a pod. The name holds the
// pod's UID, so no other pod ever has it.
func PodListener(class model.Class, t model.PodTarget) string {
	return utf8(class.String() + "/" + t.Name() + "/" + t.UID)
}

// utf8 is text as a message may hold it. Invalid bytes are replaced, and Envoy
// then reports the text as it is.
func utf8(text string) string { return strings.ToValidUTF8(text, "?") }

// ListenerSpec says which class a listener takes and where it listens: in host
// mode on one of the configured addresses, Addr; in pod mode on all of them in
// the pod Target.
type ListenerSpec struct {
	Class  model.Class
	Addr   netip.Addr
	Target model.PodTarget
}

// addresses are those the listener listens on: one at least, v4 before v6.
func (s ListenerSpec) addresses(cfg Config) []netip.Addr {
	if s.Addr.IsValid() {
		return []netip.Addr{s.Addr}
	}
	return slices.DeleteFunc(cfg.addresses(), func(a netip.Addr) bool {
		return a.Is4() && !s.Target.V4 || a.Is6() && !s.Target.V6
	})
}

// ListenerSpecs are those of all listeners. They never change once made.
type ListenerSpecs struct {
	targets []model.PodTarget
	// Names are the listeners' names, sorted.
	Names []string
	// ByName are the specs by the listener's name.
	ByName map[string]ListenerSpec
}

// newListenerSpecs makes the specs of all listeners.
func newListenerSpecs(cfg Config, targets []model.PodTarget) *ListenerSpecs {
	s := &ListenerSpecs{targets: slices.Clone(targets), ByName: map[string]ListenerSpec{}}
	for _, class := range model.Classes() {
		if cfg.PodMode {
			s.addTargets(cfg, class, targets)
			continue
		}
		for _, addr := range cfg.addresses() {
			s.ByName[listenerName(class, addr)] = ListenerSpec{Class: class, Addr: addr}
		}
	}
	s.Names = slices.Sorted(maps.Keys(s.ByName))
	return s
}

func (s *ListenerSpecs) addTargets(cfg Config, class model.Class, targets []model.PodTarget) {
	for _, t := range targets {
		spec := ListenerSpec{Class: class, Target: t}
		if len(spec.addresses(cfg)) > 0 {
			s.ByName[PodListener(class, t)] = spec
		}
	}
}
