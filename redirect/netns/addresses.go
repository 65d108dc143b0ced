// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// loopback is the index of the interface lo, in every network namespace.
const loopback = 1

// dumpAttempts bounds how often a listing is begun anew because something
// changed while it ran.
const dumpAttempts = 10

// list lists addresses as Space.Addresses does. It asks for all families at once:
// a kernel without IPv6 then has no reason to complain.
func list(route *netlink.Handle) ([]netip.Addr, error) {
	all, err := route.AddrList(nil, netlink.FAMILY_ALL)
	for i := 1; errors.Is(err, netlink.ErrDumpInterrupted) && i < dumpAttempts; i++ {
		all, err = route.AddrList(nil, netlink.FAMILY_ALL)
	}
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, a := range all {
		if a.IPNet == nil || a.LinkIndex == loopback {
			continue
		}
		if addr, ok := netip.AddrFromSlice(a.IP); ok && addr.IsGlobalUnicast() {
			addrs = append(addrs, addr.Unmap())
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}
