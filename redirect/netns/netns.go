// SPDX-License-Identifier: Apache-2.0

// Package netns finds the network namespaces of pods and enters them. What comes
// in is the addresses that pods have; what goes out is a Space for each, held open
// by a file descriptor, in which a function can be run. A namespace is known by
// its inode number, and is a pod's when the pod's address is on a link inside.
// Neither a CNI plugin nor the container runtime is asked: the runtime's mounts
// of network namespaces are listed, and processes if that is wanted. Nothing is
// mounted, and nothing in a namespace is changed.
package netns

import "errors"

// What may be wrong with a namespace; errors of this package wrap one of these,
// or what the kernel said.
var (
	// ErrNotFound: no namespace has the pod's address.
	ErrNotFound = errors.New("no network namespace of the pod found")
	// ErrAmbiguous: an address doesn't say which namespace, or which pod, is meant.
	ErrAmbiguous = errors.New("the pod's network namespace is ambiguous")
	// ErrGone: the path doesn't lead to the namespace any more, or the namespace
	// hasn't the pod's address any more, or the Space was closed.
	ErrGone = errors.New("the pod's network namespace is gone")
	// ErrNotPermitted: the kernel refuses; the error's text says what is missing.
	ErrNotPermitted = errors.New("not permitted")
)
