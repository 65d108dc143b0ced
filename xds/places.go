// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/agent/model"
)

// PodListener names the listener of one class in a pod. Every pod that ever is
// has names of its own.
func PodListener(class model.Class, t model.PodTarget) string {
	return utf8(class.String() + "/" + t.Name() + "/" + t.UID)
}

// utf8 is text as a message may hold it. What is wrong in it stays wrong, in a
// way that Envoy can say so.
func utf8(text string) string { return strings.ToValidUTF8(text, "?") }

// site is where one listener listens, and what for. In host mode it is one of
// the configured addresses; in pod mode a place, which is then not empty.
type site struct {
	class model.Class
	addr  netip.Addr
	place model.PodTarget
}

// addresses are the site's: one at least, v4 before v6.
func (s site) addresses(cfg Config) []netip.Addr {
	if s.addr.IsValid() {
		return []netip.Addr{s.addr}
	}
	return slices.DeleteFunc(cfg.addresses(), func(a netip.Addr) bool {
		return a.Is4() && !s.place.V4 || a.Is6() && !s.place.V6
	})
}

// sites are those of all listeners, by name; names are the sorted names. It
// never changes once it is made, so that who has it knows what was compared.
type sites struct {
	places []model.PodTarget
	names  []string
	byName map[string]site
}

// newSites finds them; before, which may be nil, is returned if they would be
// the same again.
func newSites(cfg Config, places []model.PodTarget, before *sites) *sites {
	if before != nil && slices.Equal(places, before.places) {
		return before
	}
	s := &sites{places: slices.Clone(places), byName: map[string]site{}}
	for _, class := range model.Classes() {
		if cfg.PodMode {
			s.addPlaces(cfg, class)
			continue
		}
		for _, addr := range cfg.addresses() {
			s.byName[listenerName(class, addr)] = site{class: class, addr: addr}
		}
	}
	s.names = sortedKeys(s.byName)
	return s
}

func (s *sites) addPlaces(cfg Config, class model.Class) {
	for _, p := range s.places {
		at := site{class: class, place: p}
		if len(at.addresses(cfg)) > 0 {
			s.byName[PodListener(class, p)] = at
		}
	}
}
