// SPDX-License-Identifier: Apache-2.0

package netfilter

import "github.com/nodevoy/nodevoy/agent/model/enum"

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
