// SPDX-License-Identifier: Apache-2.0

package model

import "slices"

// Bypassing returns a copy of the node in which those frontends are bypassed for
// which why gives a reason.
func (n *Node) Bypassing(why func(*Frontend) string) *Node {
	gated := *n
	gated.Frontends = slices.Clone(n.Frontends)
	for i, f := range n.Frontends {
		if reason := why(f); reason != "" && f.Bypass == "" {
			bypassed := *f
			bypassed.Bypass = reason
			gated.Frontends[i] = &bypassed
		}
	}
	return &gated
}

// Keeping returns a copy of the node that also has the redirected frontends of an
// earlier node which this one lacks or bypasses: connections may still be sent to
// them.
func (n *Node) Keeping(earlier *Node) *Node {
	kept := *n
	kept.Frontends = slices.Clone(n.Frontends)
	for _, f := range earlier.Frontends {
		if f.Bypass != "" {
			continue
		}
		switch at, ok := n.byAddress[f.Address]; {
		case !ok:
			kept.Frontends = append(kept.Frontends, f)
		case kept.Frontends[at].Bypass != "":
			kept.Frontends[at] = f
		}
	}
	slices.SortFunc(kept.Frontends, func(a, b *Frontend) int { return a.Address.Compare(b.Address) })
	kept.byAddress = byAddress(kept.Frontends, nil)
	return &kept
}
