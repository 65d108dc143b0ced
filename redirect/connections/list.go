// SPDX-License-Identifier: Apache-2.0

// Package connections tells which addresses the connections of a network namespace
// lead to that are redirected to Envoy.
package connections

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/conntrack"
	"github.com/nodevoy/nodevoy/redirect/dump"
)

// Filter says which connections are redirected.
type Filter struct {
	// Listeners are the addresses that connections are sent to, whatever the port.
	Listeners []netip.Addr
	// Transparent is set if they keep their destination instead: then it is the
	// address of Envoy's own socket, and conntrack knows nothing of them.
	Transparent bool
}

// List calls found with the destination of each redirected TCP connection of the
// network namespace that the thread is in, as the client sees it; with Transparent
// also with the addresses of other sockets. live says that the connection goes on;
// others ended a short time ago.
func List(f Filter, found func(to netip.AddrPort, live bool)) error {
	if !f.Transparent {
		return conntrack.List(func(e *conntrack.Entry) {
			if e.Protocol == conntrack.TCP && slices.Contains(f.Listeners, e.Answers.Addr()) {
				found(e.To, !e.State.Over())
			}
		})
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := each(socketsRequest(family), func(reply []byte) error {
			local, _, live, err := socket(reply)
			if err == nil {
				found(local, live)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("list sockets: %w", err)
		}
	}
	return nil
}

// Accepted counts the connections that were redirected to loopback addresses of the
// network namespace that the thread is in, at one of these ports, and that go on. It
// looks at sockets, which takes a tenth of the time that conntrack takes. A connection
// that was made to such an address comes from one, too.
func Accepted(ports []uint16) (n int, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := each(socketsRequest(family), func(reply []byte) error {
			local, remote, live, err := socket(reply)
			if err == nil && live && local.Addr().IsLoopback() && !remote.IsLoopback() && slices.Contains(ports, local.Port()) {
				n++
			}
			return err
		})
		if err != nil {
			return 0, fmt.Errorf("list sockets: %w", err)
		}
	}
	return n, nil
}

// each sends a request to the kernel and reads its replies one by one: there may be
// very many.
func each(req *nl.NetlinkRequest, read func(reply []byte) error) (err error) {
	const protocol = unix.NETLINK_SOCK_DIAG
	socket, err := dump.Socket(protocol)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer func() { err = errors.Join(err, socket.Close()) }()
	req.Sockets = map[int]*nl.SocketHandle{protocol: socket}
	var bad error
	err = req.ExecuteIter(protocol, 0, func(reply []byte) bool {
		bad = read(reply)
		return bad == nil
	})
	return errors.Join(bad, err)
}
