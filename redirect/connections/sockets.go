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
// the family and the state in its first bytes, and the local port and both addresses here.
const (
	diagByFamily                      = 20 // SOCK_DIAG_BY_FAMILY
	diagState, diagPort               = 1, 4
	diagLocal, diagRemote             = 8, 24
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

// socket reads one socket. live says that its connection goes on.
func socket(reply []byte) (local netip.AddrPort, remote netip.Addr, live bool, err error) {
	if len(reply) < diagSize {
		return local, remote, false, fmt.Errorf("a socket of %d bytes", len(reply))
	}
	address := func(at int) netip.Addr {
		raw := reply[at : at+4]
		if reply[0] == unix.AF_INET6 {
			raw = reply[at : at+16]
		}
		addr, _ := netip.AddrFromSlice(raw)
		return addr.Unmap()
	}
	state := reply[diagState]
	local = netip.AddrPortFrom(address(diagLocal), binary.BigEndian.Uint16(reply[diagPort:]))
	return local, address(diagRemote), state != socketTimeWait && state != socketClose, nil
}
