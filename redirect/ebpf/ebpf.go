// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"
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

// OnPods are the programs on the interfaces by which pods are connected (veth
// and netkit) in the calling thread's network namespace, sorted by interface.
// With ErrUnknown there may be others that can't be seen.
func OnPods() ([]Program, error) {
	handle, err := netlink.NewHandleWithOptions(netlink.HandleOptions{RetryInterrupted: true}, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	defer handle.Close()
	links, err := handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	slices.SortFunc(links, func(x, y netlink.Link) int { return x.Attrs().Index - y.Attrs().Index })
	var found []Program
	var unseen error
	for _, l := range links {
		hooks := attachments(l.Type())
		if hooks == nil {
			continue
		}
		programs, err := filters(handle, l)
		if err != nil {
			unseen = fmt.Errorf("%w the filters of tc: %w", ErrUnknown, err)
		}
		found = append(found, programs...)
		for _, h := range hooks {
			names, err := attached(l.Attrs().Index, h, 0)
			if err != nil && !errors.Is(err, unix.ENODEV) {
				unseen = fmt.Errorf("%w what is attached by %s: %w", ErrUnknown, h.name, err)
			}
			for _, name := range names {
				found = append(found, Program{Link: l.Attrs().Name, Hook: h.name, Name: name})
			}
		}
	}
	return found, unseen
}

// attachments are the hooks of a type of interface, other than tc's filters; nil
// for types that don't lead to pods.
func attachments(linkType string) []hook {
	tcx := []hook{{ebpf.AttachTCXIngress, "tcx ingress"}, {ebpf.AttachTCXEgress, "tcx egress"}}
	switch linkType {
	case "veth":
		return tcx
	case "netkit":
		return append(tcx, hook{ebpf.AttachNetkitPrimary, "netkit primary"}, hook{ebpf.AttachNetkitPeer, "netkit peer"})
	}
	return nil
}

// filters are the programs that are tc filters of an interface. One that is gone
// meanwhile has none.
func filters(handle *netlink.Handle, l netlink.Link) ([]Program, error) {
	var found []Program
	for _, parent := range []struct {
		id   uint32
		name string
	}{{netlink.HANDLE_MIN_INGRESS, "tc ingress"}, {netlink.HANDLE_MIN_EGRESS, "tc egress"}} {
		list, err := handle.FilterList(l, parent.id)
		// EINVAL and ENOENT: there is no place for filters, because nobody made one.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			return found, err
		}
		for _, f := range list {
			if b, ok := f.(*netlink.BpfFilter); ok {
				found = append(found, Program{Link: l.Attrs().Name, Hook: parent.name, Name: b.Name})
			}
		}
	}
	return found, nil
}

// OnConnect are the programs that act when a process of the calling thread's
// root cgroup connects a socket: what is attached there, and to any cgroup above.
// In a container that is the container's own cgroup, which is good enough:
// load balancing for the node is attached above all of them. ErrUnknown when
// no cgroup2 is mounted, or the kernel doesn't tell.
func OnConnect() ([]Program, error) {
	root, err := openCgroup()
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(root) }()
	var found []Program
	for _, h := range []hook{{ebpf.AttachCGroupInet4Connect, "connect4"}, {ebpf.AttachCGroupInet6Connect, "connect6"}} {
		names, err := attached(root, h, unix.BPF_F_QUERY_EFFECTIVE)
		if err != nil {
			return nil, fmt.Errorf("%w what is attached to %s: %w", ErrUnknown, h.name, err)
		}
		for _, name := range names {
			found = append(found, Program{Hook: h.name, Name: name})
		}
	}
	return found, nil
}

// openCgroup opens the root of the cgroup2 hierarchy, as far as this process
// sees it.
func openCgroup() (int, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil {
		return -1, fmt.Errorf("find cgroup2: %w", err)
	}
	wholeFirst(mounts)
	for _, m := range mounts {
		path := m.Mountpoint
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		var fs unix.Statfs_t
		if err == nil && unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return fd, nil
		}
		if err == nil {
			// Another mount lies over it.
			_ = unix.Close(fd)
		} else if !errors.Is(err, os.ErrNotExist) {
			return -1, fmt.Errorf("%w what is in cgroup2: open %s: %w", ErrUnknown, path, err)
		}
	}
	return -1, fmt.Errorf("%w: no cgroup2 is mounted", ErrUnknown)
}

// wholeFirst puts mounts of the whole hierarchy before mounts of parts of it.
func wholeFirst(mounts []*mountinfo.Info) {
	slices.SortStableFunc(mounts, func(a, b *mountinfo.Info) int { return part(a) - part(b) })
}

func part(m *mountinfo.Info) int {
	if m.Root == "/" {
		return 0
	}
	return 1
}
