// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink/nl"
)

// Space is a network namespace, held open until Close. It may be used by several
// goroutines at once.
type Space struct {
	path string

	mu sync.RWMutex
	ns nsFile
	// route lists addresses; nil until it is needed.
	route *nl.SocketHandle
	// cached is what route last listed.
	cached []netip.Addr
	closed bool
}

// OpenPath opens the network namespace that a path leads to: a mount of it, or
// a process's.
func OpenPath(path string) (*Space, error) {
	outside, err := openNamespace(path)
	if err != nil {
		return nil, err
	}
	defer outside.close()
	s := &Space{path: path}
	// What was opened through a mount keeps that mount busy, and the runtime might
	// be unable to unmount it. What is opened inside is of no mount.
	err = onThread(func() (bool, error) {
		return visit(outside, func() error { return outside.enterFrom(path) }, func() (err error) {
			s.ns, err = openNamespace(own)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Path is where the namespace was found.
func (s *Space) Path() string { return s.path }

// Inode is the namespace's number, which no other has while this Space is open.
func (s *Space) Inode() uint64 { return s.ns.inode }

// Do calls fn on a thread in the namespace, and returns what fn returns. Sockets
// that fn opens and programs that it starts are in the namespace, and stay there;
// what fn has done by other goroutines is not. (net/http dials by others: give it
// a DialContext that calls Do.) Calls may be nested, and Close doesn't wait for
// them. If fn can't be called, the error wraps ErrGone or ErrNotPermitted.
func (s *Space) Do(fn func() error) error {
	return onThread(func() (bool, error) {
		s.mu.RLock()
		closed := s.closed
		s.mu.RUnlock()
		if closed {
			return true, s.gone()
		}
		return visit(s.ns, s.enter, fn)
	})
}

// enter moves the calling thread into the namespace.
func (s *Space) enter() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	// The descriptor may be another file's once it was closed.
	if s.closed {
		return s.gone()
	}
	return s.ns.enterFrom(s.path)
}

func (s *Space) gone() error { return fmt.Errorf("%w: %s was closed", ErrGone, s.path) }

// Addresses are the global unicast addresses on links other than lo, sorted.
func (s *Space) Addresses() ([]netip.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, s.gone()
	}
	if s.route == nil {
		err := onThread(func() (bool, error) {
			return visit(s.ns, func() error { return s.ns.enterFrom(s.path) }, func() (err error) {
				s.route, err = openRoute()
				return err
			})
		})
		if err != nil {
			return nil, fmt.Errorf("list addresses of network namespace %s: %w", s.path, err)
		}
	}
	addrs, err := list(s.route)
	if err != nil {
		return nil, fmt.Errorf("list addresses of network namespace %s: %w", s.path, err)
	}
	s.cached = addrs
	return slices.Clone(addrs), nil
}

// cachedAddresses is what Addresses last returned.
func (s *Space) cachedAddresses() []netip.Addr {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.cached
}

// Check says whether the path still leads to the namespace, and all of ips are on
// a link of it. If not, the error wraps ErrGone; any other error means that it
// couldn't be looked at.
func (s *Space) Check(ips []netip.Addr) error {
	if err := s.reachable(); err != nil {
		return err
	}
	addrs, err := s.Addresses()
	if err != nil {
		return err
	}
	for _, ip := range ips {
		if !slices.Contains(addrs, ip.Unmap()) {
			return fmt.Errorf("%w: %s is not on a link of %s", ErrGone, ip, s.path)
		}
	}
	return nil
}

// checkAny is Check, but one of ips is enough.
func (s *Space) checkAny(ips []netip.Addr) error {
	if err := s.reachable(); err != nil {
		return err
	}
	addrs, err := s.Addresses()
	if err != nil {
		return err
	}
	if !intersect(ips, addrs) {
		return fmt.Errorf("%w: %s is not on a link of %s any more", ErrGone, join(ips), s.path)
	}
	return nil
}

// reachable says whether the path still leads to the namespace.
func (s *Space) reachable() error {
	p, err := stat(s.path)
	if err != nil {
		return err
	}
	if s.ns.id != p.id {
		return fmt.Errorf("%w: %s leads to another", ErrGone, s.path)
	}
	return nil
}

// Close closes the namespace's files. Closing twice is no error.
func (s *Space) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.route != nil {
		_ = s.route.Close() // Nothing is lost with it.
	}
	s.ns.close()
	return nil
}
