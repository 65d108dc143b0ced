// SPDX-License-Identifier: Apache-2.0

// Package model turns Kubernetes objects into the node's view of them: which
// local pods are enrolled and why, which Service addresses they may dial, and
// which backends answer there. It is pure: the same objects give the same Node,
// byte for byte, and nothing here reads a clock, a file, an API or the kernel.
//
// Every Node is computed from all objects. A Builder skips what would only be
// computed again from the very same objects; it never applies a change to an
// earlier result.
package model
