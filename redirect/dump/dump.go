// SPDX-License-Identifier: Apache-2.0

// Package dump reads what the kernel lists by netlink, in bounded memory.
package dump

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrTooMuch says that there is more than anybody needs, of rules, sets or others,
// so that it is not looked at.
var ErrTooMuch = errors.New("too much to look at")

// answerTimeout bounds the wait for the kernel's answer to one message.
const answerTimeout = 10 * time.Second

// Socket opens a socket of a netlink protocol in the network namespace that the thread
// is in. No call on it waits longer than 10 s for the kernel.
func Socket(protocol int) (*nl.SocketHandle, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), protocol)
	if err != nil {
		return nil, err
	}
	tv := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	if err := errors.Join(s.SetReceiveTimeout(&tv), s.SetSendTimeout(&tv)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &nl.SocketHandle{Socket: s}, nil
}

// attempts is how often a listing is begun that changes interrupt.
const attempts = 10

// Collect sends a request to the kernel and returns the replies. A listing that was
// interrupted by a change, and so may be wrong, is begun anew; if that doesn't help,
// the error is nl.ErrDumpInterrupted. ErrTooMuch when there are more than limit
// bytes: no more than these are ever kept, other than by the request's own
// RetryInterrupted.
func Collect(req *nl.NetlinkRequest, protocol, limit int) ([][]byte, error) {
	var replies [][]byte
	err := error(nl.ErrDumpInterrupted)
	for try := 0; try < attempts && errors.Is(err, nl.ErrDumpInterrupted); try++ {
		replies = nil
		size := 0
		err = req.ExecuteIter(protocol, 0, func(reply []byte) bool {
			if size += len(reply); size > limit {
				return false
			}
			// The reply is part of a buffer that is far larger.
			replies = append(replies, bytes.Clone(reply))
			return true
		})
		if size > limit {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrTooMuch, limit)
		}
	}
	if err != nil {
		return nil, err
	}
	return replies, nil
}

// typeMask leaves of an attribute's type what is not a flag (NLA_TYPE_MASK).
const typeMask = 0x3fff

// Attributes are those of one message or one nest, in their order, by type without
// its flags.
type Attributes []syscall.NetlinkRouteAttr

// Parse reads the attributes of a reply that begins with a header of this many bytes.
func Parse(reply []byte, header int) (Attributes, error) {
	if len(reply) < header {
		return nil, fmt.Errorf("reply of %d bytes is too short", len(reply))
	}
	attrs, err := nl.ParseRouteAttr(reply[header:])
	if err != nil {
		return nil, fmt.Errorf("parse netlink attributes: %w", err)
	}
	for i := range attrs {
		attrs[i].Attr.Type &= typeMask
	}
	return attrs, nil
}

// Get is the value of the first attribute of this type; nil when there is none.
func (a Attributes) Get(t uint16) []byte {
	for i := range a {
		if a[i].Attr.Type == t {
			return a[i].Value
		}
	}
	return nil
}

// Nest parses the value of a nested attribute.
func (a Attributes) Nest(t uint16) (Attributes, error) { return Parse(a.Get(t), 0) }

// Text is an attribute that ends with a zero byte, empty for want of one.
func (a Attributes) Text(t uint16) string {
	text, _, _ := bytes.Cut(a.Get(t), []byte{0})
	return string(text)
}

// Number is an attribute of 32 bits in network byte order, 0 for want of one.
func (a Attributes) Number(t uint16) uint32 {
	if b := a.Get(t); len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}
