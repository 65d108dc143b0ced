// SPDX-License-Identifier: Apache-2.0

// Package programs tests with real eBPF programs. Only root may load them, and
// not the root of a user namespace, so unlike the other suites of the real kernel
// this one needs the machine's. Each test has a network and a mount namespace of
// its own; its programs are attached to interfaces of that namespace, or to a
// cgroup that it makes and in which no process is.
package programs

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// fixture is a node's network namespace, with a veth.
type fixture struct {
	t    *testing.T
	veth netlink.Link
}

// newFixture puts the calling test's goroutine into new namespaces, until it ends.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	w := &fixture{t: t}
	// Never unlocked: the thread ends with the test.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		t.Fatalf("make namespaces (these tests need root): %v", err)
	}
	w.must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	// iptables-legacy locks a file there.
	w.must(unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"))
	w.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth7"}, PeerName: "eth0"}))
	w.must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "other"}}))
	var err error
	w.veth, err = netlink.LinkByName("veth7")
	w.must(err)
	return w
}

func (w *fixture) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// load loads a program that lets everything pass.
func (w *fixture) load(name string, kind, hook uint32) int {
	w.t.Helper()
	// r0 = 1; exit. For connect that means: allow. For tc -1 means: as if there
	// were no program.
	verdict := int32(1)
	if kind == unix.BPF_PROG_TYPE_SCHED_CLS {
		verdict = -1
	}
	code := [2]struct {
		operation, registers uint8
		offset               int16
		value                int32
	}{{operation: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K, value: verdict}, {operation: unix.BPF_JMP | unix.BPF_EXIT}}
	license := [...]byte{'G', 'P', 'L', 0}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&code)
	pin.Pin(&license)
	attr := struct {
		kind, count                 uint32
		code, license               uint64
		logLevel, logSize           uint32
		log                         uint64
		kernel, flags               uint32
		name                        [unix.BPF_OBJ_NAME_LEN]byte
		ifindex, expectedAttachType uint32
	}{kind: kind, count: uint32(len(code)), expectedAttachType: hook}
	attr.code, attr.license = uint64(uintptr(unsafe.Pointer(&code))), uint64(uintptr(unsafe.Pointer(&license)))
	copy(attr.name[:len(attr.name)-1], name)
	fd := w.bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	w.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// attach attaches a program to an interface, by index, or a cgroup, by file
// descriptor.
func (w *fixture) attach(program, target int, hook uint32) {
	w.t.Helper()
	attr := struct{ target, program, hook, flags, replaced, relative uint32 }{target: uint32(target), program: uint32(program), hook: hook}
	w.bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
}

func (w *fixture) bpf(command uintptr, attr unsafe.Pointer, size uintptr) int {
	w.t.Helper()
	r, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(attr), size)
	if errno != 0 {
		w.t.Fatalf("bpf command %d (these tests need the machine's root): %v", command, errno)
	}
	return int(r)
}

// filter attaches a program to the veth as tc does.
func (w *fixture) filter(program int, parent uint32, name string) {
	w.t.Helper()
	attrs := netlink.QdiscAttrs{LinkIndex: w.veth.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
	w.must(netlink.QdiscReplace(&netlink.GenericQdisc{QdiscAttrs: attrs, QdiscType: "clsact"}))
	w.must(netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: w.veth.Attrs().Index, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:          program, Name: name, DirectAction: true,
	}))
}

// cgroups unmounts every cgroup2, as this mount namespace sees it.
func (w *fixture) cgroups() {
	w.t.Helper()
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	w.must(err)
	for line := range strings.Lines(string(mounts)) {
		if mount, kind, _ := strings.Cut(line, " - "); strings.HasPrefix(kind, "cgroup2 ") {
			w.must(unix.Unmount(strings.Fields(mount)[4], unix.MNT_DETACH))
		}
	}
}

// cgroup makes a cgroup and one below it, in which no process is. It returns a
// file descriptor of the first and leaves only the second to be seen, as a
// container sees its own.
func (w *fixture) cgroup() int {
	w.t.Helper()
	w.cgroups()
	all := w.t.TempDir()
	w.must(unix.Mount("cgroup2", all, "cgroup2", 0, ""))
	own := filepath.Join(all, "nodevoy-"+strings.ToLower(strings.ReplaceAll(w.t.Name(), "/", "-")))
	container := filepath.Join(own, "container")
	w.must(os.MkdirAll(container, 0o755))
	fd, err := unix.Open(own, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	w.must(err)
	seen := w.t.TempDir()
	w.must(unix.Mount(container, seen, "", unix.MS_BIND, ""))
	// Its path leads there as long as the test's thread does.
	w.t.Cleanup(func() {
		_ = unix.Close(fd)
		w.must(unix.Unmount(seen, 0))
		w.must(unix.Mount("cgroup2", all, "cgroup2", 0, ""))
		w.must(os.Remove(container))
		w.must(os.Remove(own))
		w.must(unix.Unmount(all, 0))
	})
	w.must(unix.Unmount(all, unix.MNT_DETACH))
	return fd
}
