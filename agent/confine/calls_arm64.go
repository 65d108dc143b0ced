// SPDX-License-Identifier: Apache-2.0

package confine

import "golang.org/x/sys/unix"

// auditArch is what the kernel calls the architecture. Calls of another one, such
// as 32-bit ones, are denied.
const auditArch = unix.AUDIT_ARCH_AARCH64

// archCalls are calls that the other architecture has under another name.
func archCalls() []int { return []int{unix.SYS_FSTATAT, unix.SYS_GETRLIMIT} }
