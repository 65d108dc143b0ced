// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// threadInode is the number of the calling thread's network namespace.
func threadInode() (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat("/proc/thread-self/ns/net", &st)
	return st.Ino, err
}

func open(t *testing.T, path string) *netns.Namespace {
	t.Helper()
	s, err := netns.OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestSpaceDoIsInTheNamespaceAndNestable(t *testing.T) {
	d := newRuntimeDir(t)
	a, b := open(t, d.add("a")), open(t, d.add("b"))
	home, err := threadInode()
	if err != nil {
		t.Fatal(err)
	}
	in := func(what string, want uint64) {
		if got, err := threadInode(); err != nil || got != want {
			t.Errorf("%s: thread is in %d (%v), want %d", what, got, err, want)
		}
	}
	err = a.Do(func() error {
		in("in a", a.Inode())
		err := b.Do(func() error {
			in("in b", b.Inode())
			return nil
		})
		in("again in a", a.Inode())
		return err
	})
	in("outside", home)
	if err != nil || a.Inode() == b.Inode() || a.Inode() == home {
		t.Errorf("Do says %v; a is %d, b is %d, home is %d", err, a.Inode(), b.Inode(), home)
	}
}

func TestSpacePrograms(t *testing.T) {
	d := newRuntimeDir(t)
	s := open(t, d.add("a", "10.1.0.2"))
	var link, out []byte
	err := s.Do(func() (err error) {
		link, err = exec.Command("readlink", "/proc/self/ns/net").Output()
		if err != nil {
			return err
		}
		out, err = exec.Command("ip", "-4", "-o", "address", "show", "eth0").CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("net:[%d]", s.Inode()); strings.TrimSpace(string(link)) != want {
		t.Errorf("a program that was started inside is in %s, want %s", link, want)
	}
	if !strings.Contains(string(out), "10.1.0.2/32") {
		t.Errorf("ip shows %s", out)
	}
}

// A socket is used long after it was opened, by whatever thread.
func TestSpaceSocketsStay(t *testing.T) {
	d := newRuntimeDir(t)
	a, b := open(t, d.add("a")), open(t, d.add("b"))
	var l net.Listener
	for _, s := range []*netns.Namespace{a, b} {
		err := s.Do(func() error { return exec.Command("ip", "link", "set", "lo", "up").Run() })
		if err != nil {
			t.Fatal(err)
		}
	}
	err := a.Do(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:23722")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var served sync.WaitGroup
	served.Go(func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(c, "from a")
		c.Close()
	})
	dial := func(s *netns.Namespace) (text string, err error) {
		var c net.Conn
		err = s.Do(func() (err error) {
			c, err = net.Dial("tcp", "127.0.0.1:23722")
			return err
		})
		if err != nil {
			return "", err
		}
		defer c.Close()
		answer, err := io.ReadAll(c)
		return string(answer), err
	}
	if text, err := dial(b); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dialed in b: %q, %v, want refusal", text, err)
	}
	if text, err := dial(a); err != nil || text != "from a" {
		t.Errorf("dialed in a: %q, %v", text, err)
	}
	served.Wait()
}

// A thread that can't go back ends with the function: nothing else ever runs on
// it in the pod's namespace.
func TestSpaceThreadThatCantLeaveEnds(t *testing.T) {
	d := newRuntimeDir(t)
	s := open(t, d.add("a"))
	// The process's first thread can't end, only be parked; use another.
	tid := os.Getpid()
	for try := 0; tid == os.Getpid() && try < 100; try++ {
		err := s.Do(func() error {
			if tid = unix.Gettid(); tid == os.Getpid() {
				return nil
			}
			return dropCapabilities()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	space.Until(t, limit, "the end of the thread", func() error {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid)); err == nil {
			return errors.New("it lives")
		}
		return nil
	})
	// Others come and go as before.
	if err := s.Do(func() error { return nil }); err != nil {
		t.Error(err)
	}
}

// dropCapabilities takes all from the calling thread alone.
func dropCapabilities() error {
	var none [2]unix.CapUserData
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
}

func TestSpaceAddresses(t *testing.T) {
	d := newRuntimeDir(t)
	path := d.add("a", "10.1.0.2", "net1=192.168.7.2", "fd01::2", "lo=10.9.9.9", "eth0=169.254.3.3")
	s := open(t, path)
	expect := func(want ...string) {
		t.Helper()
		addrs, err := s.Addresses()
		if err != nil || fmt.Sprint(addrs) != fmt.Sprint(want) {
			t.Errorf("Addresses() = %v, %v, want %v", addrs, err, want)
		}
	}
	expect("10.1.0.2", "192.168.7.2", "fd01::2")
	if err := s.Check(pod("a", "10.1.0.2", "::ffff:192.168.7.2", "fd01::2").IPs); err != nil {
		t.Errorf("Check: %v", err)
	}
	says(t, s.Check(pod("a", "10.1.0.2", "10.1.0.3").IPs), netns.ErrGone, "10.1.0.3 is not on a link of "+path)
	says(t, s.Check(pod("a", "10.9.9.9").IPs), netns.ErrGone, "10.9.9.9")
	// IPv6 ends and comes back.
	sysctl := func(value string) {
		d.do(path, func() error { return exec.Command("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6="+value).Run() })
	}
	sysctl("1")
	expect("10.1.0.2", "192.168.7.2")
	sysctl("0")
	d.address(path, "fd01::2")
	expect("10.1.0.2", "192.168.7.2", "fd01::2")
}

// Whoever unmounts a pod's namespace isn't told that it is busy.
func TestSpaceKeepsNoMountBusy(t *testing.T) {
	d := newRuntimeDir(t)
	path := d.add("a", "10.1.0.2")
	s := open(t, path)
	if err := s.Check(pod("a", "10.1.0.2").IPs); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(path, 0); err != nil {
		t.Fatalf("unmount: %v", err)
	}
	says(t, s.Check(pod("a", "10.1.0.2").IPs), netns.ErrGone, path)
	// What is held lives on, so that rules can be taken out of it.
	if addrs, err := s.Addresses(); err != nil || len(addrs) != 1 {
		t.Errorf("Addresses() = %v, %v", addrs, err)
	}
	if err := s.Do(func() error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestSpaceCheckSeesAnotherNamespaceAtThePath(t *testing.T) {
	d := newRuntimeDir(t)
	path := d.add("a", "10.1.0.2")
	s := open(t, path)
	d.remove(path)
	d.add("a", "10.1.0.2")
	says(t, s.Check(pod("a", "10.1.0.2").IPs), netns.ErrGone, path, "leads to another")
}

func TestSpaceWhileOthersCloseIt(t *testing.T) {
	d := newRuntimeDir(t)
	path := d.add("a", "10.1.0.2")
	for range 20 {
		s := open(t, path)
		var users sync.WaitGroup
		for range 4 {
			users.Go(func() {
				for {
					err := s.Do(func() error {
						if got, err := threadInode(); err != nil || got != s.Inode() {
							return fmt.Errorf("in %d: %w", got, err)
						}
						return nil
					})
					if _, e := s.Addresses(); err == nil {
						err = e
					}
					if err != nil {
						if !errors.Is(err, netns.ErrGone) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		users.Go(func() { _ = s.Close() })
		users.Wait()
	}
}
