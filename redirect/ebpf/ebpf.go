// SPDX-License-Identifier: Apache-2.0

// Package ebpf asks the kernel which eBPF programs stand between a pod and the
// rules of iptables: those on the host's side of pods' interfaces, and those
// that act on connections at the socket. It only looks: it loads, attaches and
// changes nothing.
package ebpf

import "errors"

// ErrUnknown says that the kernel doesn't tell: it is too old, or the process
// hasn't the capability (BPF, NET_ADMIN or SYS_ADMIN), or a seccomp profile is in
// the way.
var ErrUnknown = errors.New("the kernel doesn't tell")

// Program is an eBPF program and where it is attached.
type Program struct {
	// Link is the network interface; empty for a program at the socket.
	Link string
	// Hook is the place at which it runs: tc ingress, tcx egress, netkit primary,
	// connect4 and the like.
	Hook string
	// Name is the program's own; empty when it has none or the kernel doesn't
	// tell.
	Name string
}

// String is link, hook and name, as far as there are any.
func (p Program) String() string {
	text := p.Hook
	if p.Link != "" {
		text = p.Link + " " + text
	}
	if p.Name != "" {
		text += " " + p.Name
	}
	return text
}
