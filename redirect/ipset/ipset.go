// SPDX-License-Identifier: Apache-2.0

package ipset

import (
	"errors"

	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Errors that callers branch on.
var (
	// ErrNotFound: there is no set of that name.
	ErrNotFound = errors.New("no such set")
	// ErrExists: there is a set of that name already.
	ErrExists = errors.New("the set exists already")
	// ErrInUse: an iptables rule refers to the set.
	ErrInUse = errors.New("the set is in use")
	// ErrMismatch: the two sets can't be swapped.
	ErrMismatch = errors.New("the sets are of different types")
	// ErrFull: the set has as many members as its MaxElements allows.
	ErrFull = errors.New("the set is full")
)

// The values that plans are made of, too.
type (
	// Type is what the members of a set are.
	Type = netfilter.SetType
	// Spec is a set without its members.
	Spec = netfilter.SetSpec
	// Member is an address, with a TCP port where the set's type has one.
	Member = netfilter.Member
)

// The types in use.
const (
	HashIP     = netfilter.HashIP
	HashIPPort = netfilter.HashIPPort
)

// Header is a set as the kernel has it.
type Header struct {
	Spec
	// Count is the number of members that have not expired; References the
	// number of rules that use the set.
	Count, References int
}
