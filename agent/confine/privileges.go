// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"
	"math/bits"
	"strings"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Capabilities is a set of capabilities: bit n is for capability n.
type Capabilities uint64

// names are those that Envoy may need, as a container's securityContext writes them.
func names() map[string]Capabilities {
	return map[string]Capabilities{
		"NET_ADMIN": 1 << unix.CAP_NET_ADMIN, "NET_RAW": 1 << unix.CAP_NET_RAW,
		"SYS_ADMIN": 1 << unix.CAP_SYS_ADMIN, "SYS_PTRACE": 1 << unix.CAP_SYS_PTRACE,
	}
}

// ParseCapabilities reads a list such as NET_ADMIN,SYS_ADMIN; empty for none.
func ParseCapabilities(text string) (all Capabilities, err error) {
	for word := range strings.SplitSeq(text, ",") {
		one, ok := names()[word]
		if !ok && text != "" {
			return 0, fmt.Errorf("%q is none of the capabilities that Envoy can use: NET_ADMIN, NET_RAW, SYS_ADMIN, SYS_PTRACE", word)
		}
		all |= one
	}
	return all, nil
}

func (c Capabilities) has(capability int) bool { return c>>capability&1 == 1 }

// The functions below act on the calling thread alone, which execve keeps. Those
// of x/sys would change every thread of the Go runtime, for nothing.

// call is a system call on this thread.
func call(what string, number uintptr, args ...uintptr) error {
	var a [5]uintptr
	copy(a[:], args)
	if _, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], 0); errno != 0 {
		return fmt.Errorf("%s: %w", what, errno)
	}
	return nil
}

// become makes the thread another user and group of the same number, without
// other groups. Capabilities stay.
func become(user int) error {
	id := uintptr(user)
	if unix.Geteuid() == user && unix.Getegid() == user {
		return nil
	}
	if err := call("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1); err != nil {
		return err
	}
	if err := call("leave all groups", unix.SYS_SETGROUPS, 0, 0); err != nil {
		return err
	}
	if err := call(fmt.Sprintf("become group %d", user), unix.SYS_SETRESGID, id, id, id); err != nil {
		return err
	}
	return call(fmt.Sprintf("become user %d", user), unix.SYS_SETRESUID, id, id, id)
}

// keep drops all other capabilities, and raises these as ambient ones, which a
// program that is started by a user other than root has.
func keep(wanted Capabilities) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	low, high := uint32(wanted), uint32(wanted>>32)
	data := [2]unix.CapUserData{{Effective: low, Permitted: low, Inheritable: low}, {Effective: high, Permitted: high, Inheritable: high}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("have only the capabilities %#x: %w: this process has to have them, and, to become another user, SETUID and SETGID", uint64(wanted), err)
	}
	if err := call("clear ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL); err != nil {
		return err
	}
	for left := uint64(wanted); left != 0; left &= left - 1 {
		capability := bits.TrailingZeros64(left)
		if err := call(fmt.Sprintf("raise ambient capability %d", capability), unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(capability)); err != nil {
			return err
		}
	}
	return nil
}

// filter installs the seccomp filter for this thread.
func filter(setns bool) error {
	instructions, err := program(auditArch, ruled(setns), plain())
	if err != nil {
		return err
	}
	raw, err := bpf.Assemble(instructions)
	if err != nil {
		return fmt.Errorf("assemble the seccomp filter: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return call("install the seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
}
