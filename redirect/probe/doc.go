// SPDX-License-Identifier: Apache-2.0

// Package probe looks at the node and decides what the configuration leaves open:
// the mode and mechanism of redirection, the iptables backend and the IP families.
// It says why, and what is missing when nothing can be used. It leaves nothing
// behind on the node.
package probe
