// SPDX-License-Identifier: Apache-2.0

// Package healthcheck asks a process on this node, by HTTP on its unix socket,
// whether it is healthy: the agent, or the node's Envoy. It speaks the little
// HTTP it needs itself, so that a program that imports nothing else stays small:
// kubelet starts one for every probe, and its memory counts against the limit of
// the container that is probed.
package healthcheck
