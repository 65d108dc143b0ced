// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

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
