// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// ErrUnknown says that the kernel doesn't tell: it is too old, or the process
// hasn't the capability (BPF, NET_ADMIN or SYS_ADMIN), or a seccomp profile is in
// the way.
var ErrUnknown = errors.New("the kernel doesn't tell")

// Program is an eBPF program and where it is attached.
type Program struct {
	// Link is the network interface; empty for a program at the socket.
	Link string
	// Hook is where it runs: tc ingress, tcx egress, netkit primary, connect4 and
	// the like.
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

// hook is a kind of attachment and its name.
type hook struct {
	kind ebpf.AttachType
	name string
}

// attached names the programs attached at a hook of a cgroup, by file descriptor,
// or of an interface, by index. A name is empty if the kernel doesn't tell it. A
// hook that the kernel doesn't know has no programs.
func attached(target int, h hook, flags uint32) ([]string, error) {
	result, err := link.QueryPrograms(link.QueryOptions{Target: target, Attach: h.kind, QueryFlags: flags})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range result.Programs {
		names = append(names, programName(p.ID))
	}
	return names, nil
}

// programName is a program's name; empty when it can't be had, which takes more
// privilege than to know that there is a program.
func programName(id ebpf.ProgramID) string {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ""
	}
	defer func() { _ = program.Close() }() // It was only read.
	info, err := program.Info()
	if err != nil {
		return ""
	}
	return info.Name
}
