// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/dump"
)

// loopback is the index of the interface lo, in every network namespace.
const loopback = 1

// maxListing bounds what is read of a namespace's addresses, in bytes. That is
// some 2,500 addresses: pods have two to ten, but may have any number.
const maxListing = 256 << 10

// openRoute opens a socket to the routing of the calling thread's namespace.
func openRoute() (*nl.SocketHandle, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &nl.SocketHandle{Socket: s}, nil
}

// list lists addresses as Namespace.Addresses does. It asks for all families at once:
// a kernel without IPv6 then has no reason to complain.
func list(route *nl.SocketHandle) ([]netip.Addr, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: route}
	req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
	replies, err := dump.Collect(req, unix.NETLINK_ROUTE, maxListing)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, r := range replies {
		attrs, err := dump.Parse(r, unix.SizeofIfAddrmsg)
		if err != nil {
			return nil, err
		}
		if nl.DeserializeIfAddrmsg(r).Index == loopback {
			continue
		}
		local := attrs.Get(unix.IFA_LOCAL)
		if local == nil {
			// Where there is a local address this is the other end's.
			local = attrs.Get(unix.IFA_ADDRESS)
		}
		if addr, ok := netip.AddrFromSlice(local); ok && addr.IsGlobalUnicast() {
			addrs = append(addrs, addr.Unmap())
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}
