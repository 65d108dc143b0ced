// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"net/netip"
	"slices"
)

// claim is a pod and the namespaces that may be its own.
type claim struct {
	pod *pod
	// candidates have one of the pod's addresses, and are held for nobody.
	candidates []location
	// contested is set if there are several candidates, or others claim one.
	contested bool
	// proved is set if processes prove that the only candidate is the pod's.
	proved bool
	// owns is set when the only candidate left is the pod's.
	owns bool
	// lost is a namespace that has one of the addresses and isn't the pod's; rival
	// is whose it is, or who claims the same.
	lost  location
	rival *pod
	// err is why it couldn't be found out.
	err error
}

// claims are what addresses say of each pod, in the order of the pods.
func (s *scan) claims(pods []*pod) []*claim {
	at := map[netip.Addr][]location{}
	for _, l := range s.locations {
		addrs := s.readings[l].addrs
		if h := s.holders[l.id]; h != nil {
			addrs = h.ns.cachedAddresses()
		}
		for _, a := range addrs {
			at[a] = append(at[a], l)
		}
	}
	claims := make([]*claim, 0, len(pods))
	claimants := map[location]int{}
	for _, p := range pods {
		c := &claim{pod: p}
		for _, ip := range p.IPs {
			for _, l := range at[ip.Unmap()] {
				// What is another pod's is not this one's, whatever addresses are put there.
				if h := s.holders[l.id]; h != nil {
					c.lost, c.rival = l, h
				} else if !slices.Contains(c.candidates, l) {
					c.candidates = append(c.candidates, l)
					claimants[l]++
				}
			}
		}
		claims = append(claims, c)
	}
	for _, c := range claims {
		c.contested = len(c.candidates) > 1 || slices.ContainsFunc(c.candidates, func(l location) bool { return claimants[l] > 1 })
	}
	return claims
}

// keep removes candidates, and remembers one of them.
func (c *claim) keep(which func(location) bool) {
	c.candidates = slices.DeleteFunc(c.candidates, func(l location) bool {
		if which(l) {
			return false
		}
		c.lost, c.rival = l, nil
		return true
	})
}

// rank is how good the claim to a candidate is. A pod that was in another namespace
// before has the least: its address is a new pod's.
func (c *claim) rank(l location) int {
	switch {
	case c.proved:
		return 2
	case c.pod.moved(l.id):
		return 0
	}
	return 1
}

// assign gives namespaces to pods: a candidate that no other pod claims with as good
// a right is the pod's, if there is but one of these, and it is nobody else's then.
// A pod's namespace has another pod's address only if somebody in it has put it
// there; so who doesn't do that, and is seen, is never mistaken because others do.
// What is left is ambiguous.
func assign(claims []*claim) {
	for changed := true; changed; {
		changed = false
		for _, c := range claims {
			if c.owns {
				continue
			}
			own, ok := c.undisputed(claims)
			if !ok {
				continue
			}
			c.owns, c.candidates, changed = true, []location{own}, true
			for _, o := range claims {
				if o != c && slices.Contains(o.candidates, own) {
					o.keep(func(l location) bool { return l != own })
					o.rival = c.pod
				}
			}
		}
	}
}

// undisputed is the only candidate that no other pod claims with as good a right.
func (c *claim) undisputed(claims []*claim) (own location, ok bool) {
	for _, l := range c.candidates {
		i := slices.IndexFunc(claims, func(o *claim) bool {
			return o != c && slices.Contains(o.candidates, l) && o.rank(l) >= c.rank(l)
		})
		switch {
		case i >= 0:
			c.rival = claims[i].pod
		case ok:
			return location{}, false
		default:
			own, ok = l, true
		}
	}
	return own, ok
}
