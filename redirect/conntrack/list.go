// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/dump"
)

// messageGet asks for entries (IPCTNL_MSG_CT_GET).
const messageGet = 1

// List calls found for each TCP and UDP connection that is tracked in the network
// namespace that the thread is in, one by one: there may be very many. Changes
// meanwhile may be in it or not.
func List(found func(*Entry)) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := list(family, found); err != nil {
			return fmt.Errorf("list conntrack's entries: %w", err)
		}
	}
	return nil
}

func list(family uint8, found func(*Entry)) (err error) {
	socket, err := dump.Socket(unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer func() { err = errors.Join(err, socket.Close()) }()
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|messageGet, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: socket}
	var bad error
	var e Entry
	err = req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(reply []byte) bool {
		if e, bad = Parse(reply); bad == nil && e.Protocol != 0 {
			found(&e)
		}
		return bad == nil
	})
	return errors.Join(bad, err)
}

func native16(b []byte) uint16 { return binary.NativeEndian.Uint16(b) }
func native32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
