// SPDX-License-Identifier: Apache-2.0

// Package confine starts a program, Envoy, with no more rights than it uses. A
// Config and a command line come in. Exec replaces the process by the program,
// with another user, few capabilities, Landlock rules for files and a seccomp
// filter that lists what it may ask of the kernel.
//
// CAP_SYS_ADMIN, which setns(2) to a network namespace needs, otherwise allows
// hundreds of other things; the filter leaves setns to network namespaces.
package confine
