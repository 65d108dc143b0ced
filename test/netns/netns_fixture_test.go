// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// runtimeDir stands for a directory where a container runtime mounts the network
// namespaces of pods.
type runtimeDir struct {
	t    testing.TB
	path string
}

func newRuntimeDir(t testing.TB) *runtimeDir {
	t.Helper()
	space.New(t)
	d := &runtimeDir{t, t.TempDir()}
	t.Cleanup(func() {
		entries, _ := os.ReadDir(d.path)
		for _, e := range entries {
			_ = unix.Unmount(filepath.Join(d.path, e.Name()), unix.MNT_DETACH)
		}
	})
	return d
}

// add makes a namespace, mounts it and gives it addresses on eth0; it returns the
// path. What is given as "net1=10.0.0.1" is on another link.
func (d *runtimeDir) add(name string, addrs ...string) string {
	d.t.Helper()
	path := filepath.Join(d.path, name)
	err := os.WriteFile(path, nil, 0o600)
	if err == nil {
		err = elsewhere(func() error {
			return errors.Join(unix.Unshare(unix.CLONE_NEWNET), unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""))
		})
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.address(path, addrs...)
	return path
}

// elsewhere runs fn on a thread that ends with it.
func elsewhere(fn func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- fn()
	}()
	return <-result
}

// do runs fn in the namespace that a path leads to.
func (d *runtimeDir) do(path string, fn func() error) {
	d.t.Helper()
	s, err := netns.OpenPath(path)
	if err == nil {
		err = errors.Join(s.Do(fn), s.Close())
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// address puts addresses on links, which are made.
func (d *runtimeDir) address(path string, addrs ...string) {
	d.t.Helper()
	d.do(path, func() error {
		for _, text := range addrs {
			link, addr, ok := strings.Cut(text, "=")
			if !ok {
				link, addr = "eth0", text
			}
			if err := address(link, netip.MustParseAddr(addr)); err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		return nil
	})
}

func address(name string, addr netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-peer"})
		if err == nil {
			link, err = netlink.LinkByName(name)
		}
	}
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(netip.PrefixFrom(addr, addr.BitLen()).String())
	if err != nil {
		return err
	}
	return netlink.AddrReplace(link, a)
}

// flush takes an address away.
func (d *runtimeDir) flush(path, addr string) {
	d.t.Helper()
	d.do(path, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		ip := netip.MustParseAddr(addr)
		a, err := netlink.ParseAddr(netip.PrefixFrom(ip, ip.BitLen()).String())
		if err != nil {
			return err
		}
		return netlink.AddrDel(link, a)
	})
}

// remove undoes add as a runtime does when a pod is deleted.
func (d *runtimeDir) remove(path string) {
	d.t.Helper()
	if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path)); err != nil {
		d.t.Fatal(err)
	}
}

// search is a Finder whose time goes on as far as it is told.
type search struct {
	*netns.Finder
	t   testing.TB
	now time.Time
}

func (d *runtimeDir) finder(proc string) *search {
	s := &search{t: d.t, now: time.Unix(1000, 0)}
	cfg := netns.Config{Dirs: []string{d.path}, Proc: proc}
	if err := cfg.Validate(); err != nil {
		d.t.Fatal(err)
	}
	log := zap.NewNop()
	if _, ok := d.t.(*testing.T); ok {
		log = zaptest.NewLogger(d.t)
	}
	s.Finder = netns.New(cfg, func() time.Time { return s.now }, log)
	d.t.Cleanup(s.Close)
	return s
}

// pod is a wanted pod whose UID is its name.
func pod(name string, ips ...string) netns.Wanted {
	w := netns.Wanted{UID: name, Name: "default/" + name}
	for _, ip := range ips {
		w.IPs = append(w.IPs, netip.MustParseAddr(ip))
	}
	return w
}

// later looks again when enough time went by for any pod to be looked for.
func (s *search) later(want ...netns.Wanted) (map[string]*netns.Namespace, map[string]error) {
	s.now = s.now.Add(10 * time.Second)
	return s.Find(want)
}

// expect looks again, and expects pods to be found at these paths and no others.
func (s *search) expect(paths map[string]string, want ...netns.Wanted) (map[string]*netns.Namespace, map[string]error) {
	s.t.Helper()
	found, missing := s.later(want...)
	if len(found)+len(missing) != len(want) {
		s.t.Errorf("of %d pods, %d are found and %d missing", len(want), len(found), len(missing))
	}
	for uid, path := range paths {
		if found[uid] == nil {
			s.t.Fatalf("%s is missing: %v", uid, missing[uid])
		}
		if found[uid].Path() != path {
			s.t.Errorf("%s is at %s, want %s", uid, found[uid].Path(), path)
		}
	}
	if len(found) != len(paths) {
		s.t.Errorf("found %v, want %v", slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(paths)))
	}
	return found, missing
}

// says fails the test unless an error is of a kind and has all of the words.
func says(t testing.TB, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error %v, want %v", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %v doesn't name %q", err, w)
		}
	}
}

// openFiles counts the process's open files.
func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
