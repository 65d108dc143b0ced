// SPDX-License-Identifier: Apache-2.0

// Package ebpf asks the kernel which eBPF programs see a pod's traffic before
// the rules of iptables do: those on the host's side of pods' interfaces, and
// those that act on connections at the socket. It only reads: it loads, attaches
// and changes nothing.
package ebpf
