// SPDX-License-Identifier: Apache-2.0

// Package iptables reads and writes iptables, of one backend and one family at
// a time, through the node's own commands. It never lists what it was not asked
// for, and never makes the kernel set up a table by looking at it.
//
// A question has three answers: it is there, it is not there (ErrNotFound), or
// nobody can tell (any other error). ErrNotFound and ErrUnreadable are returned
// only when that was seen; a command that fails for another reason says nothing
// about the rules. Whatever the tables hold, a call takes bounded time and memory:
// see dump.ErrTooMuch. Fake is the same without a kernel.
package iptables
