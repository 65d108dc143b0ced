// SPDX-License-Identifier: Apache-2.0

package connections

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Values of linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h. A message has
// the family and the state in its first bytes, and the local port and address here.
const (
	diagByFamily                      = 20 // SOCK_DIAG_BY_FAMILY
	diagState, diagPort, diagAddress  = 1, 4, 8
	diagSize                          = 72
	socketTimeWait, socketClose, list = 6, 7, 10
)

// diagRequest is struct inet_diag_req_v2.
type diagRequest [56]byte

// Len is its size.
func (*diagRequest) Len() int { return len(diagRequest{}) }

// Serialize is its bytes.
func (r *diagRequest) Serialize() []byte { return r[:] }

// socketsRequest asks for the TCP sockets of a family that don't listen.
func socketsRequest(family uint8) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(diagByFamily, unix.NLM_F_DUMP)
	ask := &diagRequest{family, unix.IPPROTO_TCP}
	nl.NativeEndian().PutUint32(ask[4:], ^uint32(1<<list))
	req.AddData(ask)
	return req
}

// socket reads one socket.
func socket(reply []byte, found func(netip.AddrPort, bool)) error {
	if len(reply) < diagSize {
		return fmt.Errorf("a socket of %d bytes", len(reply))
	}
	raw := reply[diagAddress : diagAddress+4]
	if reply[0] == unix.AF_INET6 {
		raw = reply[diagAddress : diagAddress+16]
	}
	addr, _ := netip.AddrFromSlice(raw)
	state := reply[diagState]
	found(netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(reply[diagPort:])), state != socketTimeWait && state != socketClose)
	return nil
}
