// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// endpointScope says which backends of a Service port are asked for: of which
// family, and whether only those on this node (internalTrafficPolicy Local). It
// knows no externalTrafficPolicy: kube-proxy gives a pod that dials an external
// IP the whole cluster's endpoints under either policy.
type endpointScope struct{ v6, local bool }

// portBackends are the backends of one Service port, by scope.
type portBackends map[endpointScope][]Backend

// backends are those that this node should use for each port of the Service,
// as far as its claims need them.
func (r *serviceReader) backends(v *serviceView) []portBackends {
	r.scratch.fill(v.slices, &v.problems)
	made := make([]portBackends, len(v.Spec.Ports))
	for i := range v.claims {
		port, scope := v.claims[i].port, v.claims[i].scope()
		if made[port] == nil {
			made[port] = portBackends{}
		}
		if _, done := made[port][scope]; !done {
			list := r.scratch.of(v.Spec.Ports[port].Name, scope.v6)
			made[port][scope] = r.usable(list, scope.local)
		}
	}
	return made
}

// usable picks the candidates kube-proxy would use: see CategorizeEndpoints in
// its pkg/proxy/topology.go. Serving-terminating ones are used only where no
// ready one is left, so that a rollout drops nothing.
func (r *serviceReader) usable(list []candidate, local bool) []Backend {
	if local {
		list = slices.DeleteFunc(list, func(c candidate) bool { return !r.onThisNode(c.from) })
	}
	hints := noHints
	if !local {
		hints = r.hints(list)
	}
	ready := 0
	for i := range list {
		if list[i].ready && r.hinted(list[i].from, hints) {
			ready++
		}
	}
	if ready == 0 {
		return stillServing(list)
	}
	backends := make([]Backend, 0, ready)
	for i := range list {
		if list[i].ready && r.hinted(list[i].from, hints) {
			backends = append(backends, list[i].backend())
		}
	}
	return backends
}

// stillServing are the candidates that serve while they terminate.
func stillServing(list []candidate) []Backend {
	var backends []Backend
	for i := range list {
		if list[i].serving && list[i].terminating {
			backend := list[i].backend()
			backend.Terminating = true
			backends = append(backends, backend)
		}
	}
	return backends
}

func (c *candidate) backend() Backend {
	backend := Backend{Address: c.address, Namespace: c.slice.Namespace}
	if ref := c.from.TargetRef; ref != nil && namesPod(ref, c.slice.Namespace) {
		backend.Pod = ref.Name
	}
	if node := c.from.NodeName; node != nil && validName(*node) {
		backend.Node = *node
	}
	if zone := c.from.Zone; zone != nil && validLabelValue(*zone) {
		backend.Zone = *zone
	}
	return backend
}

// namesPod says whether the reference names a pod of this namespace. The API server
// lets the slice's author write anything there, and logs name the pod.
func namesPod(ref *corev1.ObjectReference, namespace string) bool {
	return ref.Kind == kindPod && (ref.Namespace == "" || ref.Namespace == namespace) && validName(ref.Name)
}

// hintsUse says which hints of a Service port's endpoints are followed.
type hintsUse int

const (
	noHints hintsUse = iota
	nodeHints
	zoneHints
)

// hints decides which hints count: those for nodes, then those for zones, each
// only when every ready endpoint has one and at least one is for this node or
// its zone. Anything else could leave the node with nothing, or overload a few.
func (r *serviceReader) hints(list []candidate) hintsUse {
	anyReady, allNodes, allZones, forNode, forZone := false, true, true, false, false
	for i := range list {
		if !list[i].ready {
			continue
		}
		anyReady = true
		hints := list[i].from.Hints
		if hints == nil {
			return noHints
		}
		allNodes = allNodes && len(hints.ForNodes) > 0
		allZones = allZones && len(hints.ForZones) > 0
		forNode = forNode || r.hinted(list[i].from, nodeHints)
		forZone = forZone || r.hinted(list[i].from, zoneHints)
	}
	switch {
	case anyReady && allNodes && forNode:
		return nodeHints
	case anyReady && allZones && forZone:
		return zoneHints
	default:
		return noHints
	}
}

// hinted says whether the endpoint is meant for this node under those hints.
func (r *serviceReader) hinted(ep *discoveryv1.Endpoint, use hintsUse) bool {
	switch {
	case use == noHints:
		return true
	case ep.Hints == nil:
		return false
	case use == nodeHints:
		return slices.ContainsFunc(ep.Hints.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == r.nodeName })
	default:
		return r.zone != "" &&
			slices.ContainsFunc(ep.Hints.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == r.zone })
	}
}

func (r *serviceReader) onThisNode(ep *discoveryv1.Endpoint) bool {
	return r.nodeName != "" && ep.NodeName != nil && *ep.NodeName == r.nodeName
}
