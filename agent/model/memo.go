// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// servicesMemo holds what the last build computed of each Service, to be used
// again while the Service and its EndpointSlices are the same objects.
type servicesMemo struct {
	nodeName, zone string
	offLimits      *offLimits
	// build counts builds. Each marks what it meets with its number, and drops
	// what has another, so that the memo is of the last build alone.
	build  uint64
	views  map[*corev1.Service]*serviceView
	groups map[serviceKey]*sliceGroup
	// known finds the group of a slice without hashing names.
	known map[*discoveryv1.EndpointSlice]*knownSlice
	// met counts what of each map this build met so far.
	met struct{ views, groups, known int }
	// claims are those of all views, sorted.
	claims []*claim
	behind behindMemo
}

// serviceKey names a Service.
type serviceKey struct{ namespace, name string }

// sliceGroup has the EndpointSlices of one Service.
type sliceGroup struct {
	slices []*discoveryv1.EndpointSlice
	build  uint64
}

// knownSlice is an EndpointSlice and the group it is in.
type knownSlice struct {
	group *sliceGroup
	build uint64
}

// frontends gives every address to one Service port and finds its backends.
func (m *servicesMemo) frontends(in Inputs, r serviceReader, p *problems) []*Frontend {
	if m.build == 0 || m.nodeName != r.nodeName || m.zone != r.zone || !m.offLimits.same(r.offLimits) {
		*m = servicesMemo{
			nodeName: r.nodeName, zone: r.zone, offLimits: r.offLimits,
			views:  make(map[*corev1.Service]*serviceView, len(in.Services)),
			groups: make(map[serviceKey]*sliceGroup, len(in.Services)),
			known:  make(map[*discoveryv1.EndpointSlice]*knownSlice, len(in.EndpointSlices)),
		}
	}
	m.build++
	m.met.views, m.met.groups, m.met.known = 0, 0, 0
	m.group(in.EndpointSlices, p)
	fresh := m.read(in.Services, &r, p)
	m.claims = merge(m.claims, fresh, m.build)
	m.forget()
	frontends := winners(m.claims, p)
	if r.offLimits == nil {
		return frontends
	}
	return m.behind.bypassing(frontends)
}

// group groups the EndpointSlices by the Service they belong to.
func (m *servicesMemo) group(all []*discoveryv1.EndpointSlice, p *problems) {
	for _, slice := range all {
		if slice == nil {
			continue
		}
		known := m.known[slice]
		if known == nil {
			name := slice.Labels[discoveryv1.LabelServiceName]
			if name == "" {
				p.add(kindEndpointSlice, &slice.ObjectMeta, "metadata.labels["+discoveryv1.LabelServiceName+"]",
					"is missing; the slice belongs to no Service")
				continue
			}
			known = &knownSlice{group: m.groupOf(slice.Namespace, name)}
			m.known[slice] = known
		}
		if known.build == m.build {
			continue // listed twice
		}
		known.build = m.build
		m.met.known++
		m.begin(known.group)
		known.group.slices = append(known.group.slices, slice)
	}
}

// groupOf is the group of the Service of this name.
func (m *servicesMemo) groupOf(namespace, name string) *sliceGroup {
	key := serviceKey{namespace, name}
	g := m.groups[key]
	if g == nil {
		g = &sliceGroup{}
		m.groups[key] = g
	}
	return g
}

// begin empties the group when a build meets it first.
func (m *servicesMemo) begin(g *sliceGroup) {
	if g.build != m.build {
		clear(g.slices)
		g.build, g.slices = m.build, g.slices[:0]
		m.met.groups++
	}
}

// sorted are the slices of the group that this build met, sorted by name.
func (m *servicesMemo) sorted(g *sliceGroup) []*discoveryv1.EndpointSlice {
	m.begin(g)
	if len(g.slices) > 1 {
		slices.SortFunc(g.slices, func(x, y *discoveryv1.EndpointSlice) int { return cmp.Compare(x.Name, y.Name) })
	}
	return g.slices
}

// read sees to it that there is a view of each Service, and returns the claims
// of those that the last build did not have.
func (m *servicesMemo) read(services []*corev1.Service, r *serviceReader, p *problems) []*claim {
	var fresh []*claim
	for _, svc := range services {
		if svc == nil {
			continue
		}
		v := m.views[svc]
		if v == nil {
			v = &serviceView{group: m.groupOf(svc.Namespace, svc.Name)}
		}
		if v.build == m.build {
			continue // listed twice
		}
		if own := m.sorted(v.group); v.Service == nil || !slices.Equal(v.slices, own) {
			v = r.read(svc, v.group, slices.Clone(own))
			m.views[svc] = v
			for i := range v.claims {
				fresh = append(fresh, &v.claims[i])
			}
		}
		v.build = m.build
		m.met.views++
		p.addAll(v.problems)
	}
	return fresh
}

// forget drops what this build did not meet.
func (m *servicesMemo) forget() {
	if m.met.views < len(m.views) {
		maps.DeleteFunc(m.views, func(_ *corev1.Service, v *serviceView) bool { return v.build != m.build })
	}
	if m.met.groups < len(m.groups) {
		maps.DeleteFunc(m.groups, func(_ serviceKey, g *sliceGroup) bool { return g.build != m.build })
	}
	if m.met.known < len(m.known) {
		maps.DeleteFunc(m.known, func(_ *discoveryv1.EndpointSlice, s *knownSlice) bool { return s.build != m.build })
	}
}
