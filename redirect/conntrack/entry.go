// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
)

// Attributes of linux/netfilter/nfnetlink_conntrack.h, as far as they are read.
const (
	attrOrig, attrReply, attrStatus, attrProtoInfo        = 1, 2, 3, 4
	attrSentCounters, attrReceivedCounters                = 9, 10
	attrID, attrTimestamp                                 = 12, 20
	tupleIP, tupleProto                                   = 1, 2
	ipV4Src, ipV4Dst, ipV6Src, ipV6Dst                    = 1, 2, 3, 4
	protoNumber, protoSrcPort, protoDstPort               = 1, 2, 3
	infoTCP, infoTCPState                                 = 1, 1
	countersBytes, timestampStart, timestampStop          = 2, 1, 2
	statusReplied, statusAssured                   uint32 = 1 << 1, 1 << 2
)

// typeMask leaves of an attribute's type what is not a flag (NLA_TYPE_MASK).
const typeMask = 0x3fff

// Protocols of Entry.
const (
	TCP = 6
	UDP = 17
)

// State is that of a TCP connection (linux/netfilter/nf_conntrack_tcp.h).
type State uint8

// The states.
const (
	StateNone State = iota
	StateSynSent
	StateSynReceived
	StateEstablished
	StateFinWait
	StateCloseWait
	StateLastAck
	StateTimeWait
	StateClose
)

// Over says whether the connection has ended: the kernel keeps it a while longer.
func (s State) Over() bool { return s == StateTimeWait || s == StateClose }

// Entry is one connection of TCP or UDP, as its client sees it.
type Entry struct {
	// ID tells connections that exist at the same time apart.
	ID       uint32
	Protocol uint8
	// From and To are the ends as the client has them, and Answers is who answers it:
	// another address than To if that is translated.
	From, To, Answers netip.AddrPort
	// State is of TCP alone.
	State State
	// Replied says that something came back; Assured that a TCP connection was
	// established, or that UDP went both ways more than once.
	Replied, Assured bool
	// Sent and Received count the client's bytes, with headers, if Counted: only with
	// the node's setting nf_conntrack_acct.
	Sent, Received uint64
	Counted        bool
	// Start, and Stop, when the kernel had seen nothing of it for so long that it forgot
	// it, are known only with the node's setting nf_conntrack_timestamp.
	Start, Stop time.Time
}

var errShort = errors.New("a message of conntrack is too short")

// Parse reads a message, from struct nfgenmsg on. Protocols other than TCP and UDP give
// the zero Entry. Nothing is allocated.
func Parse(message []byte) (e Entry, err error) {
	if len(message) < nl.SizeofNfgenmsg {
		return Entry{}, errShort
	}
	err = each(message[nl.SizeofNfgenmsg:], func(kind uint16, value []byte) (err error) {
		switch kind {
		case attrOrig:
			e.From, e.To, e.Protocol, err = tuple(value)
		case attrReply:
			// Answers go to the client as servers see it, which is nobody's concern here.
			e.Answers, _, _, err = tuple(value)
		default:
			err = e.read(kind, value)
		}
		return err
	})
	if err != nil || e.Protocol != TCP && e.Protocol != UDP {
		return Entry{}, err
	}
	if !e.From.IsValid() || !e.To.IsValid() || !e.Answers.IsValid() {
		return Entry{}, errors.New("a connection without addresses")
	}
	return e, nil
}

// read reads an attribute other than a tuple.
func (e *Entry) read(kind uint16, value []byte) error {
	switch kind {
	case attrStatus:
		status := number(value)
		e.Replied, e.Assured = status&statusReplied != 0, status&statusAssured != 0
	case attrID:
		e.ID = number(value)
	case attrProtoInfo:
		return nested(value, infoTCP, infoTCPState, func(v []byte) {
			if len(v) == 1 {
				e.State = State(v[0])
			}
		})
	case attrSentCounters:
		return find(value, countersBytes, func(v []byte) { e.Sent, e.Counted = number64(v), true })
	case attrReceivedCounters:
		return find(value, countersBytes, func(v []byte) { e.Received, e.Counted = number64(v), true })
	case attrTimestamp:
		return each(value, func(kind uint16, value []byte) error {
			switch kind {
			case timestampStart:
				e.Start = time.Unix(0, int64(number64(value)))
			case timestampStop:
				e.Stop = time.Unix(0, int64(number64(value)))
			}
			return nil
		})
	}
	return nil
}

// tuple reads one direction of a connection.
func tuple(b []byte) (from, to netip.AddrPort, protocol uint8, err error) {
	var src, dst netip.Addr
	var srcPort, dstPort uint16
	err = each(b, func(kind uint16, value []byte) error {
		switch kind {
		case tupleIP:
			return each(value, func(kind uint16, value []byte) error {
				addr, ok := netip.AddrFromSlice(value)
				switch kind {
				case ipV4Src, ipV6Src:
					src = addr
				case ipV4Dst, ipV6Dst:
					dst = addr
				default:
					ok = true
				}
				if !ok {
					return fmt.Errorf("an address of %d bytes", len(value))
				}
				return nil
			})
		case tupleProto:
			return each(value, func(kind uint16, value []byte) error {
				switch {
				case kind == protoNumber && len(value) == 1:
					protocol = value[0]
				case kind == protoSrcPort && len(value) == 2:
					srcPort = binary.BigEndian.Uint16(value)
				case kind == protoDstPort && len(value) == 2:
					dstPort = binary.BigEndian.Uint16(value)
				}
				return nil
			})
		}
		return nil
	})
	return netip.AddrPortFrom(src, srcPort), netip.AddrPortFrom(dst, dstPort), protocol, err
}

// each calls found for each attribute, until it returns an error.
func each(b []byte, found func(kind uint16, value []byte) error) error {
	const header = 4
	for len(b) >= header {
		size := int(binary.NativeEndian.Uint16(b))
		if size < header || size > len(b) {
			return errShort
		}
		if err := found(binary.NativeEndian.Uint16(b[2:])&typeMask, b[header:size]); err != nil {
			return err
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil
}

// find calls found for the attributes of one kind.
func find(b []byte, want uint16, found func(value []byte)) error {
	return each(b, func(kind uint16, value []byte) error {
		if kind == want {
			found(value)
		}
		return nil
	})
}

// nested is find for those in attributes of another kind.
func nested(b []byte, outer, want uint16, found func(value []byte)) error {
	return each(b, func(kind uint16, value []byte) error {
		if kind == outer {
			return find(value, want, found)
		}
		return nil
	})
}

// number is a value of 32 bits; 0 for another size.
func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// number64 is one of 64 bits.
func number64(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
