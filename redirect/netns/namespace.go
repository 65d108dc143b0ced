// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/dump"
)

// What may be wrong with a namespace; errors of this package wrap one of these,
// or what the kernel said.
var (
	// ErrNotFound: all namespaces were looked at, and none has the pod's address.
	ErrNotFound = errors.New("no network namespace of the pod found")
	// ErrAmbiguous: an address doesn't say which namespace, or which pod, is meant.
	ErrAmbiguous = errors.New("the pod's network namespace is ambiguous")
	// ErrGone: the path doesn't lead to the namespace any more, or the namespace
	// hasn't the pod's address any more, or the Namespace was closed.
	ErrGone = errors.New("the pod's network namespace is gone")
	// ErrUnknown: something couldn't be looked at, so nobody can tell whether the
	// pod's namespace is there. It is tried again.
	ErrUnknown = errors.New("can't tell which network namespace is the pod's")
	// ErrNotPermitted: the kernel refuses; the error's text says what is missing.
	ErrNotPermitted = errors.New("not permitted")
)

// Namespace is a network namespace, held open until Close. It may be used by
// several goroutines at once.
type Namespace struct {
	path string

	mu   sync.RWMutex
	file nsFile
	// route lists addresses; nil until it is needed.
	route *nl.SocketHandle
	// cached is what route last listed.
	cached []netip.Addr
	closed bool
}

// OpenPath opens the network namespace that a path leads to: a mount of it, or
// a process's.
func OpenPath(path string) (*Namespace, error) {
	outside, err := openNamespace(path)
	if err != nil {
		return nil, err
	}
	defer outside.close()
	n := &Namespace{path: path}
	// What was opened through a mount keeps that mount busy, and the runtime might
	// be unable to unmount it. What is opened inside is of no mount.
	err = onThread(func() (bool, error) {
		return visit(outside, func() error { return outside.enterFrom(path) }, func() (err error) {
			n.file, err = openNamespace(own)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// open opens the Namespace, unless another is there by now.
func (l location) open() (*Namespace, error) {
	n, err := OpenPath(l.path)
	if err == nil && n.file.id != l.id {
		return nil, errors.Join(n.gone("leads to another"), n.Close())
	}
	return n, err
}

// Path is where the namespace was found.
func (n *Namespace) Path() string { return n.path }

// Inode is the namespace's number, which no other has while this one is open.
func (n *Namespace) Inode() uint64 { return n.file.inode }

// Do calls fn on a thread in the namespace, and returns what fn returns. Sockets
// that fn opens and programs that it starts are in the namespace, and stay there;
// what fn has done by other goroutines is not. (net/http dials by others: give it
// a DialContext that calls Do.) Calls may be nested, and Close doesn't wait for
// them. If fn can't be called, the error wraps ErrGone or ErrNotPermitted.
func (n *Namespace) Do(fn func() error) error {
	return onThread(func() (bool, error) {
		if err := n.whileOpen(func() error { return nil }); err != nil {
			return true, err
		}
		return visit(n.file, func() error {
			return n.whileOpen(func() error { return n.file.enterFrom(n.path) })
		}, fn)
	})
}

// whileOpen calls fn and keeps Close waiting meanwhile: the descriptor may be another
// file's once it was closed.
func (n *Namespace) whileOpen(fn func() error) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.closed {
		return n.gone("was closed")
	}
	return fn()
}

func (n *Namespace) gone(why string) error { return fmt.Errorf("%w: %s %s", ErrGone, n.path, why) }

// Addresses are the global unicast addresses on links other than lo, sorted.
func (n *Namespace) Addresses() ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, n.gone("was closed")
	}
	err := n.openRoute()
	if err == nil {
		var addrs []netip.Addr
		if addrs, err = list(n.route); err == nil {
			n.cached = addrs
			return slices.Clone(addrs), nil
		}
	}
	return nil, fmt.Errorf("list addresses of network namespace %s: %w", n.path, err)
}

// openRoute opens the socket by which addresses are listed, once.
func (n *Namespace) openRoute() error {
	if n.route != nil {
		return nil
	}
	return onThread(func() (bool, error) {
		return visit(n.file, func() error { return n.file.enterFrom(n.path) }, func() (err error) {
			n.route, err = openRoute()
			return err
		})
	})
}

func (n *Namespace) cachedAddresses() []netip.Addr {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.cached
}

// Check says whether the path still leads to the namespace, and all of ips are on
// a link of it. If not, the error wraps ErrGone; any other error means that it
// couldn't be looked at.
func (n *Namespace) Check(ips []netip.Addr) error {
	addrs, err := n.reachable()
	for _, ip := range ips {
		if err == nil && !slices.Contains(addrs, ip.Unmap()) {
			err = fmt.Errorf("%w: %s is not on a link of %s", ErrGone, ip, n.path)
		}
	}
	return err
}

// checkAny is Check, but one of ips is enough.
func (n *Namespace) checkAny(ips []netip.Addr) error {
	addrs, err := n.reachable()
	if err == nil && !slices.ContainsFunc(ips, func(ip netip.Addr) bool { return slices.Contains(addrs, ip.Unmap()) }) {
		return fmt.Errorf("%w: %s is not on a link of %s any more", ErrGone, join(ips, netip.Addr.String, ", "), n.path)
	}
	return err
}

// reachable gives the addresses, if the path still leads to the namespace.
func (n *Namespace) reachable() ([]netip.Addr, error) {
	l, err := stat(n.path)
	if err != nil {
		return nil, err
	}
	if n.file.id != l.id {
		return nil, n.gone("leads to another")
	}
	return n.Addresses()
}

// Close closes the namespace's files. Closing twice is no error.
func (n *Namespace) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	if n.route != nil {
		_ = n.route.Close() // Nothing is lost with it.
	}
	n.file.close()
	return nil
}

// loopback is the index of the interface lo, in every network namespace.
const loopback = 1

// maxListing bounds what is read of a namespace's addresses, in bytes. That is
// some 2,500 addresses: pods have two to ten, but may have any number.
const maxListing = 256 << 10

// openRoute opens a socket to the routing of the calling thread's namespace.
func openRoute() (*nl.SocketHandle, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &nl.SocketHandle{Socket: s}, nil
}

// list lists addresses as Namespace.Addresses does. It asks for all families at once:
// a kernel without IPv6 then has no reason to complain.
func list(route *nl.SocketHandle) ([]netip.Addr, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: route}
	req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
	replies, err := dump.Collect(req, unix.NETLINK_ROUTE, maxListing)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, r := range replies {
		attrs, err := dump.Parse(r, unix.SizeofIfAddrmsg)
		if err != nil {
			return nil, err
		}
		if nl.DeserializeIfAddrmsg(r).Index == loopback {
			continue
		}
		local := attrs.Get(unix.IFA_LOCAL)
		if local == nil {
			// Where there is a local address this is the other end's.
			local = attrs.Get(unix.IFA_ADDRESS)
		}
		if addr, ok := netip.AddrFromSlice(local); ok && addr.IsGlobalUnicast() {
			addrs = append(addrs, addr.Unmap())
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}
