// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

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
	for _, h := range []hook{{unix.BPF_CGROUP_INET4_CONNECT, "connect4"}, {unix.BPF_CGROUP_INET6_CONNECT, "connect6"}} {
		names, err := query(attached{target: root, hook: h.kind, flags: unix.BPF_F_QUERY_EFFECTIVE})
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
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return -1, fmt.Errorf("find cgroup2: %w", err)
	}
	for _, path := range cgroups(mounts) {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		var fs unix.Statfs_t
		if err == nil && unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return fd, nil
		}
		if err == nil {
			// Another mount lies over it.
			_ = unix.Close(fd)
		} else if errors.Is(err, os.ErrPermission) {
			return -1, fmt.Errorf("%w what is in cgroup2: open %s: %w", ErrUnknown, path, err)
		}
	}
	return -1, fmt.Errorf("%w: no cgroup2 is mounted", ErrUnknown)
}

// cgroups are the mount points of cgroup2 in a text as of /proc/PID/mountinfo:
// first those of the whole hierarchy.
func cgroups(mountinfo []byte) []string {
	var whole, parts []string
	lines := bufio.NewScanner(bytes.NewReader(mountinfo))
	for lines.Scan() {
		// id parent device root point options [tags] - type source options
		mount, source, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(mount)
		if len(fields) < 5 || !strings.HasPrefix(source, "cgroup2 ") {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		if fields[3] == "/" {
			whole = append(whole, point)
		} else {
			parts = append(parts, point)
		}
	}
	return append(whole, parts...)
}
