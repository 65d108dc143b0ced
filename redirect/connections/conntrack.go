// SPDX-License-Identifier: Apache-2.0

package connections

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/dump"
)

// Attributes and values of linux/netfilter/nfnetlink_conntrack.h and
// nf_conntrack_tcp.h.
const (
	messageGet = 1 // IPCTNL_MSG_CT_GET

	tupleOrig, tupleReply, protoInfo = 1, 2, 4
	tupleIP, tupleProto              = 1, 2
	v4Src, v4Dst, v6Src, v6Dst       = 1, 2, 3, 4
	srcPort, dstPort                 = 2, 3
	infoTCP, infoTCPState            = 1, 1

	stateTimeWait, stateClose = 7, 8
)

// entriesRequest asks for the entries of a family.
func entriesRequest(family uint8) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|messageGet, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return req
}

// entry reads one entry.
func (f Filter) entry(reply []byte, found func(netip.AddrPort, bool)) error {
	attrs, err := dump.Parse(reply, nl.SizeofNfgenmsg)
	if err != nil {
		return err
	}
	orig, err := attrs.Nest(tupleOrig)
	if err != nil {
		return err
	}
	answer, err := attrs.Nest(tupleReply)
	if err != nil {
		return err
	}
	info, err := attrs.Nest(protoInfo)
	if err != nil {
		return err
	}
	tcp := info.Get(infoTCP)
	if tcp == nil {
		return nil // Another protocol.
	}
	state, err := dump.Parse(tcp, 0)
	if err != nil {
		return err
	}
	to, err := end(orig, v4Dst, v6Dst, dstPort)
	if err != nil {
		return err
	}
	from, err := end(answer, v4Src, v6Src, srcPort)
	if err != nil {
		return err
	}
	if s := state.Get(infoTCPState); f.redirected(from) && len(s) == 1 {
		found(to, s[0] != stateTimeWait && s[0] != stateClose)
	}
	return nil
}

// end is one end of a tuple.
func end(tuple dump.Attributes, v4, v6, port uint16) (netip.AddrPort, error) {
	ip, err := tuple.Nest(tupleIP)
	if err != nil {
		return netip.AddrPort{}, err
	}
	proto, err := tuple.Nest(tupleProto)
	if err != nil {
		return netip.AddrPort{}, err
	}
	raw := ip.Get(v4)
	if raw == nil {
		raw = ip.Get(v6)
	}
	addr, ok := netip.AddrFromSlice(raw)
	number := proto.Get(port)
	if !ok || len(number) != 2 {
		return netip.AddrPort{}, errors.New("a connection without address or port")
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(number)), nil
}
