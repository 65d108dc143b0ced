// SPDX-License-Identifier: Apache-2.0

// Package netfilter has the values that the plan shares with the packages which
// touch the kernel: what a set is, what a policy routing rule is, and which
// iptables backend writes. It is data only.
package netfilter
