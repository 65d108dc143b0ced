// SPDX-License-Identifier: Apache-2.0

package confine

import "golang.org/x/sys/unix"

// auditArch is what the kernel calls the architecture. Calls of another one, such
// as 32-bit ones, are denied.
const auditArch = unix.AUDIT_ARCH_X86_64

// archCalls are older forms of other calls, which only this architecture has.
func archCalls() []int {
	return []int{
		unix.SYS_EPOLL_WAIT, unix.SYS_POLL, unix.SYS_SELECT, unix.SYS_PIPE, unix.SYS_DUP2, unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT,
		unix.SYS_NEWFSTATAT, unix.SYS_ACCESS, unix.SYS_READLINK, unix.SYS_UNLINK, unix.SYS_CHMOD, unix.SYS_TIME, unix.SYS_GETRLIMIT,
		unix.SYS_ARCH_PRCTL,
	}
}
