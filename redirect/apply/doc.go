// SPDX-License-Identifier: Apache-2.0

// Package apply makes the kernel of one network namespace, the host's or a pod's,
// hold a plan. An Applier writes sets, chains, jumps, addresses and routes, engages
// and disengages redirection, finds drift, and removes every trace. Kernel is what
// it needs of the kernel.
//
// It never redirects traffic of the node itself, and nothing but what enrolled pods
// send to a frontend.
package apply
