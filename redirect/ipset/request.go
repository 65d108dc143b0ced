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
)

// Flags of a list request (IPSET_FLAG_LIST_* in linux/netfilter/ipset/ip_set.h),
// and the code of "Hash is full, cannot add more elements".
const (
	flagListNames  = 1 << 1
	flagListHeader = 1 << 2
	errHashFull    = nl.IPSET_ERR_TYPE_SPECIFIC
)

// typeMask leaves of an attribute's type what is not a flag (NLA_TYPE_MASK).
const typeMask = 0x3fff

// maxListing bounds what is read of a listing, in bytes. A set of 262,144 members,
// the largest that is made here, is about 14 MB; in a pod that may administer its
// network there can be any number of sets and members.
const maxListing = 32 << 20

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
func (s *Sets) execute(req *nl.NetlinkRequest) ([]attributes, error) {
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: s.socket}
	messages, err := dump.Collect(req, unix.NETLINK_NETFILTER, maxListing)
	if err != nil {
		return nil, explain(err)
	}
	replies := make([]attributes, 0, len(messages))
	for _, m := range messages {
		if len(m) < nl.SizeofNfgenmsg {
			return nil, fmt.Errorf("reply of %d bytes is too short", len(m))
		}
		a, err := parse(m[nl.SizeofNfgenmsg:])
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
	switch {
	case errno == syscall.ENOENT:
		return ErrNotFound
	case errno == syscall.EEXIST:
		return ErrExists
	case errno == nl.IPSET_ERR_BUSY || errno == nl.IPSET_ERR_REFERENCED:
		return ErrInUse
	case errno == nl.IPSET_ERR_TYPE_MISMATCH:
		return ErrMismatch
	case errno == errHashFull:
		return ErrFull
	case errno >= nl.IPSET_ERR_PRIVATE:
		return fmt.Errorf("ipset: %w", nl.IPSetError(errno))
	}
	return errno
}

// attributes are those of one message or one nest, by type without its flags.
type attributes []syscall.NetlinkRouteAttr

func parse(b []byte) (attributes, error) {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil, fmt.Errorf("parse netlink attributes: %w", err)
	}
	for i := range attrs {
		attrs[i].Attr.Type &= typeMask
	}
	return attrs, nil
}

// get is the value of the first attribute of this type; nil when there is none.
func (a attributes) get(t uint16) []byte {
	for i := range a {
		if a[i].Attr.Type == t {
			return a[i].Value
		}
	}
	return nil
}

// nest parses the value of a nested attribute.
func (a attributes) nest(t uint16) (attributes, error) { return parse(a.get(t)) }

func (a attributes) text(t uint16) string {
	b := a.get(t)
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return string(b)
}

func (a attributes) number32(t uint16) uint32 {
	if b := a.get(t); len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func name(n string) *nl.RtAttr { return nl.NewRtAttr(nl.IPSET_ATTR_SETNAME, nl.ZeroTerminated(n)) }

func uint32Attr(t int, v uint32) *nl.Uint32Attribute {
	return &nl.Uint32Attribute{Type: uint16(t) | nl.NLA_F_NET_BYTEORDER, Value: v}
}

// member is the nest of attributes that stands for one member.
func member(t Type, m Member) *nl.RtAttr {
	data := nl.NewRtAttr(nl.IPSET_ATTR_DATA|int(nl.NLA_F_NESTED), nil)
	addr := m.Addr()
	kind := nl.IPSET_ATTR_IPADDR_IPV4
	if family.Of(addr) == family.V6 {
		kind = nl.IPSET_ATTR_IPADDR_IPV6
	}
	ip := data.AddRtAttr(nl.IPSET_ATTR_IP|int(nl.NLA_F_NESTED), nil)
	ip.AddRtAttr(kind|int(nl.NLA_F_NET_BYTEORDER), addr.AsSlice())
	if t == HashIPPort {
		data.AddRtAttr(nl.IPSET_ATTR_PORT|int(nl.NLA_F_NET_BYTEORDER), binary.BigEndian.AppendUint16(nil, m.Port()))
		data.AddRtAttr(nl.IPSET_ATTR_PROTO, nl.Uint8Attr(unix.IPPROTO_TCP))
	}
	return data
}
