// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"net/netip"
	"time"

	"github.com/nodevoy/nodevoy/redirect/family"
)

// SetType is what the members of a set are.
type SetType string

// The types in use.
const (
	// HashIP has addresses; a member's port is 0.
	HashIP SetType = "hash:ip"
	// HashIPPort has addresses with a TCP port.
	HashIPPort SetType = "hash:ip,port"
)

// SetSpec is a set without its members.
type SetSpec struct {
	Name   string
	Type   SetType
	Family family.Family
	// Timeout is after how long a member expires; 0 for never. The kernel counts
	// whole seconds.
	Timeout time.Duration
	// MaxElements bounds the number of members.
	MaxElements uint32
}

// Member is an address, with a TCP port where the set's type has one.
type Member = netip.AddrPort
