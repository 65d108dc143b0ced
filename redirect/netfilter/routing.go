// SPDX-License-Identifier: Apache-2.0

package netfilter

import "github.com/nodevoy/nodevoy/redirect/family"

// PolicyRule sends packets with the bits of Mark to the routing table Table, which
// delivers all of them to this host.
type PolicyRule struct {
	Family          family.Family
	Mark            uint32
	Table, Priority int
}
