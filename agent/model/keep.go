// SPDX-License-Identifier: Apache-2.0

package model

import (
	"maps"
	"net/netip"
	"slices"
)

// Keeping is the node with those frontends of an earlier view, not bypassed there,
// that it has no more or bypasses. It is for who may still send connections there.
func (n *Node) Keeping(earlier *Node) *Node {
	kept := *n
	kept.Frontends, kept.byAddress = slices.Clone(n.Frontends), maps.Clone(n.byAddress)
	for i := range earlier.Frontends {
		f := &earlier.Frontends[i]
		if f.Bypass != "" {
			continue
		}
		switch at, ok := kept.byAddress[f.Address]; {
		case !ok:
			kept.Frontends = append(kept.Frontends, *f)
		case kept.Frontends[at].Bypass != "":
			kept.Frontends[at] = *f
		}
	}
	slices.SortFunc(kept.Frontends, func(a, b Frontend) int { return a.Address.Compare(b.Address) })
	kept.byAddress = make(map[netip.AddrPort]int, len(kept.Frontends))
	for i := range kept.Frontends {
		kept.byAddress[kept.Frontends[i].Address] = i
	}
	return &kept
}
