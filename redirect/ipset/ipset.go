// SPDX-License-Identifier: Apache-2.0

// Package ipset makes, fills, reads and removes the kernel's sets of addresses,
// by netlink. It speaks the protocol itself, over the sockets and attributes of
// vishvananda/netlink: that library's own ipset calls add members one at a time
// (26 µs each), take 58 µs a member to list them, can't ask for a set's header
// alone, and panic on an error that is not an errno.
//
// Members are TCP only. Fake is the same without a kernel.
package ipset

import (
	"errors"
	"net/netip"
	"time"

	"github.com/nodevoy/nodevoy/redirect/family"
)

// Errors that callers branch on.
var (
	// ErrNotFound: there is no set of that name.
	ErrNotFound = errors.New("no such set")
	// ErrExists: there is a set of that name already.
	ErrExists = errors.New("the set exists already")
	// ErrInUse: an iptables rule refers to the set.
	ErrInUse = errors.New("the set is in use")
	// ErrMismatch: the two sets can't be swapped.
	ErrMismatch = errors.New("the sets are of different types")
	// ErrFull: the set has as many members as its MaxElements allows.
	ErrFull = errors.New("the set is full")
)

// Type is what the members of a set are.
type Type string

// The types in use.
const (
	// HashIP has addresses; a member's port is 0.
	HashIP Type = "hash:ip"
	// HashIPPort has addresses with a TCP port.
	HashIPPort Type = "hash:ip,port"
)

// Spec is a set without its members.
type Spec struct {
	Name   string
	Type   Type
	Family family.Family
	// Timeout is after how long a member leaves by itself; 0 for never. The
	// kernel counts whole seconds.
	Timeout time.Duration
	// MaxElements bounds the number of members.
	MaxElements uint32
}

// Header is a set as the kernel has it.
type Header struct {
	Spec
	// Count is the number of members that have not expired; References the
	// number of rules that use the set.
	Count, References int
}

// Member is an address, with a TCP port where the set's type has one.
type Member = netip.AddrPort
