// SPDX-License-Identifier: Apache-2.0

// Package handover lets generations of the agent follow each other on one node
// without a gap. While a new pod starts beside the old one, each generation has
// listener ports of its own, and exactly one of them writes to the kernel.
//
// What decides is in a directory of the node that all generations share: a lock
// file for each slot of ports, held for life, and a file that names the owner of
// the kernel's rules. Lease is one generation's part in that.
package handover
