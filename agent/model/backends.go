// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// choice says which backends of a Service port are asked for: of which family,
// and whether only those on this node (internalTrafficPolicy Local). It has no
// place for externalTrafficPolicy: kube-proxy gives a pod that dials an
// external IP the whole cluster's endpoints under either policy.
type choice int

const (
	clusterV4 choice = iota
	clusterV6
	localV4
	localV6
	choices
)

func (c choice) v6() bool    { return c == clusterV6 || c == localV6 }
func (c choice) local() bool { return c == localV4 || c == localV6 }

// portBackends are the backends of one Service port for each choice.
type portBackends [choices][]Backend

// backends are those that this node should use for each port of the Service,
// as far as the claims need them.
func (b *builder) backends(svc *corev1.Service, group []*discoveryv1.EndpointSlice, claims []claim) []portBackends {
	b.read(group)
	made := make([]portBackends, len(svc.Spec.Ports))
	for i := range claims {
		port, ch := claims[i].port, claims[i].choice()
		if made[port][ch] == nil {
			list := b.candidates(group, svc.Spec.Ports[port].Name, ch.v6())
			made[port][ch] = b.usable(list, ch.local())
		}
	}
	return made
}

// usable picks the candidates kube-proxy would use: see CategorizeEndpoints in
// its pkg/proxy/topology.go. Serving-terminating ones are used only where no
// ready one is left, so that a rollout drops nothing.
func (b *builder) usable(list []candidate, local bool) []Backend {
	if local {
		list = slices.DeleteFunc(list, func(c candidate) bool { return !b.onThisNode(c.from) })
	}
	hints := noHints
	if !local {
		hints = b.hints(list)
	}
	ready := 0
	for i := range list {
		if list[i].ready && b.hinted(list[i].from, hints) {
			ready++
		}
	}
	if ready == 0 {
		return leaving(list)
	}
	backends := make([]Backend, 0, ready)
	for i := range list {
		if list[i].ready && b.hinted(list[i].from, hints) {
			backends = append(backends, list[i].backend())
		}
	}
	return backends
}

// leaving are the candidates that still serve while they terminate.
func leaving(list []candidate) []Backend {
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
	if ref := c.from.TargetRef; ref != nil && ref.Kind == kindPod {
		backend.Pod = ref.Name
		if ref.Namespace != "" {
			backend.Namespace = ref.Namespace
		}
	}
	if c.from.NodeName != nil {
		backend.Node = *c.from.NodeName
	}
	if c.from.Zone != nil {
		backend.Zone = *c.from.Zone
	}
	return backend
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
func (b *builder) hints(list []candidate) hintsUse {
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
		forNode = forNode || b.hinted(list[i].from, nodeHints)
		forZone = forZone || b.hinted(list[i].from, zoneHints)
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
func (b *builder) hinted(ep *discoveryv1.Endpoint, use hintsUse) bool {
	switch {
	case use == noHints:
		return true
	case ep.Hints == nil:
		return false
	case use == nodeHints:
		return slices.ContainsFunc(ep.Hints.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == b.in.NodeName })
	default:
		return b.zone != "" &&
			slices.ContainsFunc(ep.Hints.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == b.zone })
	}
}

func (b *builder) onThisNode(ep *discoveryv1.Endpoint) bool {
	return b.in.NodeName != "" && ep.NodeName != nil && *ep.NodeName == b.in.NodeName
}
