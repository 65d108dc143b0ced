// SPDX-License-Identifier: Apache-2.0

package netns

import "errors"

// What may be wrong with a namespace; errors of this package wrap one of these,
// or what the kernel said.
var (
	// ErrNotFound: all namespaces were looked at, and none has the pod's address.
	ErrNotFound = errors.New("no network namespace of the pod found")
	// ErrAmbiguous: an address doesn't say which namespace, or which pod, is meant.
	ErrAmbiguous = errors.New("the pod's network namespace is ambiguous")
	// ErrGone: the path doesn't lead to the namespace any more, or the namespace
	// hasn't the pod's address any more, or the Space was closed.
	ErrGone = errors.New("the pod's network namespace is gone")
	// ErrUnknown: something couldn't be looked at, so nobody can tell whether the
	// pod's namespace is there. It is tried again.
	ErrUnknown = errors.New("can't tell which network namespace is the pod's")
	// ErrNotPermitted: the kernel refuses; the error's text says what is missing.
	ErrNotPermitted = errors.New("not permitted")
)
