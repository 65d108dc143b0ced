// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// claim is one address that one Service asks for. Of several claims of an
// address one becomes a frontend.
type claim struct {
	// frontend is what the claim becomes if no other has its address.
	frontend Frontend
	// external is set for the addresses that the cluster did not hand out
	// itself. They come second: nobody may take another Service's ClusterIP
	// by writing it into externalIPs.
	external bool
	service  *serviceView
	// port is the index in spec.ports, and field the path of the address.
	port  int
	field string
}

// scope is which backends of its port the claim needs.
func (c *claim) scope() endpointScope {
	policy := c.service.Spec.InternalTrafficPolicy
	return endpointScope{
		v6:    c.frontend.Address.Addr().Is6(),
		local: !c.external && policy != nil && *policy == corev1.ServiceInternalTrafficPolicyLocal,
	}
}

// winners are the frontends of sorted claims, one for each address; the other
// claims are reported.
func winners(sorted []*claim, p *problems) []*Frontend {
	frontends := make([]*Frontend, 0, len(sorted))
	var winner *claim
	for _, c := range sorted {
		if winner != nil && winner.frontend.Address == c.frontend.Address {
			p.addConflict(c, winner)
			continue
		}
		winner = c
		frontends = append(frontends, &c.frontend)
	}
	return frontends
}

// compareClaims puts the winner of an address first: the Service whose
// ClusterIP it is, then the oldest, then the first by name.
func compareClaims(x, y *claim) int {
	if c := x.frontend.Address.Compare(y.frontend.Address); c != 0 {
		return c
	}
	if x.external != y.external {
		if y.external {
			return -1
		}
		return 1
	}
	return cmp.Or(
		x.service.CreationTimestamp.Compare(y.service.CreationTimestamp.Time),
		cmp.Compare(x.service.Namespace, y.service.Namespace),
		cmp.Compare(x.service.Name, y.service.Name),
		cmp.Compare(x.port, y.port),
		cmp.Compare(x.field, y.field),
	)
}

// addConflict reports the loser of an address. A Service that names one
// address twice, as external and as load-balancer IP, has lost nothing.
func (p *problems) addConflict(loser, winner *claim) {
	if loser.service == winner.service && loser.port == winner.port {
		return
	}
	p.add(kindService, &loser.service.ObjectMeta, loser.field,
		loser.frontend.Address.String()+" already belongs to "+winner.service.Namespace+"/"+winner.service.Name+
			" port "+portName(&winner.service.Spec.Ports[winner.port])+"; ignored here")
}

// merge is the sorted list of all claims of the build: those of the last build
// that are still in this one, and the fresh ones.
func merge(last, fresh []*claim, build uint64) []*claim {
	slices.SortFunc(fresh, compareClaims)
	merged := make([]*claim, 0, len(last)+len(fresh))
	for _, c := range last {
		if c.service.build != build {
			continue
		}
		for len(fresh) > 0 && compareClaims(fresh[0], c) < 0 {
			merged, fresh = append(merged, fresh[0]), fresh[1:]
		}
		merged = append(merged, c)
	}
	return append(merged, fresh...)
}
