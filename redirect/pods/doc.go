// SPDX-License-Identifier: Apache-2.0

// Package pods makes the network namespaces of all enrolled pods on a node hold a
// plan of pod mode, with one apply.Applier for each. It locates the namespaces,
// applies, refreshes and disengages, and reports what became of each pod. What goes
// wrong in one pod never holds up another.
package pods
