// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"net/netip"
	"time"

	"github.com/nodevoy/nodevoy/agent/model/enum"
	"github.com/nodevoy/nodevoy/redirect/family"
)

// Backend is the part of the kernel that iptables commands write to.
type Backend string

// The backends.
const (
	// AutoBackend lets the probe of the node choose.
	AutoBackend Backend = "auto"
	// NFT is nf_tables.
	NFT Backend = "nft"
	// Legacy is x_tables.
	Legacy Backend = "legacy"
)

// String is the backend as flags and logs write it.
func (b Backend) String() string { return string(b) }

// MarshalText writes the backend as flags do.
func (b Backend) MarshalText() ([]byte, error) { return []byte(b), nil }

// UnmarshalText reads a backend's name.
func (b *Backend) UnmarshalText(text []byte) error {
	return enum.Read(b, text, "iptables backend", AutoBackend, NFT, Legacy)
}

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

// PolicyRule sends packets with the bits of Mark to the routing table Table, which
// delivers all of them to this host.
type PolicyRule struct {
	Family          family.Family
	Mark            uint32
	Table, Priority int
}
