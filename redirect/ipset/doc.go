// SPDX-License-Identifier: Apache-2.0

// Package ipset makes, fills, reads and removes the kernel's sets of addresses,
// by netlink. It speaks the protocol itself, over the sockets and attributes of
// vishvananda/netlink: that library's own ipset calls add members one at a time
// (26 µs each), take 58 µs a member to list them, can't ask for a set's header
// alone, and panic on an error that is not an errno.
//
// Members are TCP only. Fake is the same without a kernel.
package ipset
