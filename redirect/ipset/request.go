// SPDX-License-Identifier: Apache-2.0

package ipset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Flags of a list request (IPSET_FLAG_LIST_* in linux/netfilter/ipset/ip_set.h),
// and the code of "Hash is full, cannot add more elements".
const (
	flagListNames  = 1 << 1
	flagListHeader = 1 << 2
	errHashFull    = nl.IPSET_ERR_TYPE_SPECIFIC
)

// maxListing bounds what is read of a listing, in bytes. A set of 262,144 members,
// the largest that is made here, is about 14 MB.
const maxListing = 32 << 20

// MaxUntrusted bounds it after Untrusted, where several are read at the same time. A
// member takes 32 bytes, or 44 of IPv6, so that 10,000 frontends take 0.44 MB, and
// there is room for 95,000; 65,534 names, all that a kernel allows, take 3.4 MB.
const MaxUntrusted = 4 << 20

// The revisions asked for: the lowest that every supported kernel has, since a
// newer one only adds options that are not used.
const revision = 1

// request begins a message. Callers add attributes and execute it.
func request(cmd, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(cmd|unix.NFNL_SUBSYS_IPSET<<8, nl.GetIpsetFlags(cmd)|flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_PROTOCOL, nl.Uint8Attr(nl.IPSET_PROTOCOL)))
	return req
}

// execute sends a request and returns the replies' attributes.
func (s *Sets) execute(req *nl.NetlinkRequest) ([]dump.Attributes, error) {
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: s.socket}
	messages, err := dump.Collect(req, unix.NETLINK_NETFILTER, s.maxListing)
	if err != nil {
		return nil, explain(err)
	}
	replies := make([]dump.Attributes, 0, len(messages))
	for _, m := range messages {
		a, err := dump.Parse(m, nl.SizeofNfgenmsg)
		if err != nil {
			return nil, err
		}
		replies = append(replies, a)
	}
	return replies, nil
}

// explain turns the kernel's number into one of this package's errors.
func explain(err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	known := map[syscall.Errno]error{
		syscall.ENOENT: ErrNotFound, syscall.EEXIST: ErrExists, errHashFull: ErrFull,
		nl.IPSET_ERR_BUSY: ErrInUse, nl.IPSET_ERR_REFERENCED: ErrInUse, nl.IPSET_ERR_TYPE_MISMATCH: ErrMismatch,
		nl.IPSET_ERR_FIND_TYPE: ErrNoType,
	}
	if is := known[errno]; is != nil {
		return is
	}
	if errno >= nl.IPSET_ERR_PRIVATE {
		return fmt.Errorf("ipset: %w", nl.IPSetError(errno))
	}
	return errno
}

func name(n string) *nl.RtAttr { return nl.NewRtAttr(nl.IPSET_ATTR_SETNAME, nl.ZeroTerminated(n)) }

func uint32Attr(t int, v uint32) *nl.Uint32Attribute {
	return &nl.Uint32Attribute{Type: uint16(t) | nl.NLA_F_NET_BYTEORDER, Value: v}
}

// member is the nest of attributes that stands for one member.
func member(t netfilter.SetType, m netfilter.Member) *nl.RtAttr {
	data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|int(nl.NLA_F_NESTED), nil)
	addr := m.Addr()
	kind := family.Pick(family.Of(addr), nl.IPSET_ATTR_IPADDR_IPV4, nl.IPSET_ATTR_IPADDR_IPV6)
	ip := data.AddRtAttr(nl.IPSET_ATTR_IP|int(nl.NLA_F_NESTED), nil)
	ip.AddRtAttr(kind|int(nl.NLA_F_NET_BYTEORDER), addr.AsSlice())
	if t == netfilter.HashIPPort {
		data.AddRtAttr(nl.IPSET_ATTR_PORT|int(nl.NLA_F_NET_BYTEORDER), binary.BigEndian.AppendUint16(nil, m.Port()))
		data.AddRtAttr(nl.IPSET_ATTR_PROTO, nl.Uint8Attr(unix.IPPROTO_TCP))
	}
	return data
}
