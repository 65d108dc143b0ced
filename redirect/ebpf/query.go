// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attached says where to look: at a hook of a cgroup, by file descriptor, or of
// an interface, by index.
type attached struct {
	target int
	hook   uint32
	flags  uint32
}

// maxPrograms bounds how many programs of one hook are told apart; there are
// rarely more than two.
const maxPrograms = 64

// queryAttr is the kernel's bpf_attr for BPF_PROG_QUERY. It is whole, as the
// kernel writes to its end; older kernels accept what they don't know as long as
// it is zero.
type queryAttr struct {
	target, hook, flags, attachFlags  uint32
	programs                          uint64
	count, _                          uint32
	programFlags, links, linkFlags, _ uint64
}

// query names the programs attached at a hook; an empty name is one that the
// kernel doesn't tell. A hook that the kernel doesn't know has none.
func query(at attached) ([]string, error) {
	var ids [maxPrograms]uint32
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids)
	attr := queryAttr{
		target: uint32(at.target), hook: at.hook, flags: at.flags,
		programs: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: maxPrograms,
	}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return nil, nil
	case err != nil && !errors.Is(err, unix.ENOSPC):
		return nil, err
	}
	var names []string
	for _, id := range ids[:min(attr.count, maxPrograms)] {
		names = append(names, programName(id))
	}
	return names, nil
}

// idAttr is the kernel's bpf_attr for BPF_PROG_GET_FD_BY_ID.
type idAttr struct{ id, next, flags uint32 }

// infoAttr is the kernel's bpf_attr for BPF_OBJ_GET_INFO_BY_FD.
type infoAttr struct {
	fd, length uint32
	info       uint64
}

// programInfo is the beginning of the kernel's bpf_prog_info: the name comes
// after numbers that don't matter here.
type programInfo struct {
	_    [64]byte
	name [unix.BPF_OBJ_NAME_LEN]byte
}

// programName is a program's name; empty when it can't be had, which takes more
// privilege than to know that there is a program.
func programName(id uint32) string {
	byID := idAttr{id: id}
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&byID), unsafe.Sizeof(byID))
	if err != nil {
		return ""
	}
	defer func() { _ = unix.Close(fd) }()
	var info programInfo
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	attr := infoAttr{fd: uint32(fd), length: uint32(unsafe.Sizeof(info)), info: uint64(uintptr(unsafe.Pointer(&info)))}
	_, err = bpf(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.name[:])
}

// bpf is bpf(2).
func bpf(command uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
