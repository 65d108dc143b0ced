// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// cacheLife is how long the addresses of a namespace that is no wanted pod's are
// believed; they hardly ever change.
const cacheLife = time.Second

// place is a path that leads to a namespace.
type place struct {
	id
	path string
}

// reading is what was found in a namespace.
type reading struct {
	addrs []netip.Addr
	at    time.Time
}

// look is what is known of the node's namespaces at one time.
type look struct {
	// seen has the host's own too.
	seen   map[id]bool
	places []place
	errs   []error
}

// newLook knows the host's own namespaces: the calling thread's, which may differ
// from the process's.
func newLook() (*look, error) {
	l := &look{seen: map[id]bool{}}
	for _, path := range []string{own, "/proc/self/ns/net"} {
		p, err := stat(path)
		if err != nil {
			// The host's might be taken for a pod's.
			return nil, fmt.Errorf("tell the host's network namespace from others: %w", err)
		}
		l.seen[p.id] = true
	}
	return l, nil
}

// stat identifies the namespace that a path leads to. What is no namespace is an
// error that wraps ErrGone: a mount that is about to be made, or was just undone,
// looks like that.
func stat(path string) (place, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return place{}, describe("find", path, err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return place{}, fmt.Errorf("%w: %s is no namespace", ErrGone, path)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return place{}, describe("find", path, err)
	}
	return place{id{st.Dev, st.Ino}, path}, nil
}

// add takes what path leads to, unless it is known by another path.
func (l *look) add(path string) {
	p, err := stat(path)
	switch {
	case errors.Is(err, ErrGone):
	case err != nil:
		l.errs = append(l.errs, err)
	case !l.seen[p.id]:
		l.seen[p.id] = true
		l.places = append(l.places, p)
	}
}

// directories looks for mounts of namespaces.
func (l *look) directories(dirs []string) {
	var seen []os.FileInfo
	for _, dir := range dirs {
		is, err := os.Stat(dir)
		if err == nil && slices.ContainsFunc(seen, func(other os.FileInfo) bool { return os.SameFile(is, other) }) {
			// One of the usual places is often a link to another.
			continue
		}
		seen = append(seen, is)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			l.errs = append(l.errs, fmt.Errorf("list directory of network namespaces: %w", err))
		}
		for _, e := range entries {
			if !e.IsDir() {
				l.add(filepath.Join(dir, e.Name()))
			}
		}
	}
}

// trouble is nil if everything could be looked at, else one error however many
// there were: they are alike.
func (l *look) trouble() error {
	if len(l.errs) < 2 {
		return errors.Join(l.errs...)
	}
	return fmt.Errorf("%w (and %d more)", l.errs[0], len(l.errs)-1)
}

// read gives the addresses in each namespace; one that is gone is left out, and
// so is what is no network namespace.
func (l *look) read(places []place, now time.Time) map[place]reading {
	readings := map[place]reading{}
	err := onThread(func() (bool, error) {
		from, err := openNamespace(own)
		if err != nil {
			return true, err
		}
		defer from.close()
		for _, p := range places {
			addrs, err := inside(p)
			switch {
			case errors.Is(err, ErrGone):
			case err != nil:
				l.errs = append(l.errs, err)
			default:
				readings[p] = reading{addrs, now}
			}
		}
		here, err := stat(own)
		return (err == nil && here.id == from.id) || from.enter() == nil, nil
	})
	if err != nil {
		l.errs = append(l.errs, err)
	}
	return readings
}

// inside lists the addresses in a namespace, and leaves the calling thread in it.
func inside(p place) ([]netip.Addr, error) {
	ns, err := openNamespace(p.path)
	if err != nil {
		return nil, err
	}
	defer ns.close()
	if ns.id != p.id {
		return nil, fmt.Errorf("%w: %s leads to another", ErrGone, p.path)
	}
	if err := ns.enterFrom(p.path); err != nil {
		return nil, err
	}
	route, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("list addresses of network namespace %s: %w", p.path, err)
	}
	defer route.Close()
	addrs, err := list(route)
	if err != nil {
		return nil, fmt.Errorf("list addresses of network namespace %s: %w", p.path, err)
	}
	return addrs, nil
}

// cached is read, for those that weren't read lately. Where no address was found
// there may be one soon.
func (f *Finder) cached(l *look, places []place, now time.Time) map[place]reading {
	var unread []place
	readings := map[place]reading{}
	for _, p := range places {
		r, ok := f.cache[p]
		if ok && now.Sub(r.at) < cacheLife && len(r.addrs) > 0 {
			readings[p] = r
		} else {
			unread = append(unread, p)
		}
	}
	if len(unread) > 0 {
		for p, r := range l.read(unread, now) {
			readings[p] = r
		}
	}
	return readings
}

// intersect says whether two lists have an address in common.
func intersect(a, b []netip.Addr) bool {
	return slices.ContainsFunc(a, func(x netip.Addr) bool { return slices.Contains(b, x.Unmap()) })
}
