// SPDX-License-Identifier: Apache-2.0

// Package conntrack tells which connections the kernel tracks in a network namespace:
// by events as they begin and end, and by a list of those that there are. It writes
// nothing, and never holds up the kernel: events that nobody took in time are lost, and
// counted.
package conntrack
