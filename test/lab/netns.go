// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// names is where `ip netns` looks for names.
const names = "/run/netns"

// namespace is a network namespace with a name that `ip netns` knows too.
type namespace struct {
	name string
	// path is the mount that holds it.
	path string
	fd   netns.NsHandle
	nl   *netlink.Handle
}

// newNamespace makes a namespace whose lo is up and whose IPv6 addresses can
// be used at once. It is mounted at the path, by unshared or by
// unsharedWithUser.
func newNamespace(name, path string, mount func(path string) error) (*namespace, error) {
	n := &namespace{name: name, path: path}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, fmt.Errorf("make the mount point of namespace %s: %w", name, err)
	}
	if known := filepath.Join(names, name); known != path {
		if err := os.Symlink(path, known); err != nil {
			return nil, fmt.Errorf("name namespace %s: %w", name, err)
		}
	}
	err := mount(path)
	if err != nil {
		return nil, fmt.Errorf("make namespace %s: %w", name, err)
	}
	if n.fd, err = netns.GetFromPath(path); err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", name, err)
	}
	if n.nl, err = netlink.NewHandleAt(n.fd); err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", name, err)
	}
	lo, err := n.nl.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo in %s: %w", name, err)
	}
	if err := n.nl.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("set lo up in %s: %w", name, err)
	}
	// Duplicate address detection takes seconds, and nobody else is here.
	return n, n.sysctl("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
}

// unshared mounts a new network namespace.
func unshared(path string) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, "")
	})
}

// unsharedWithUser mounts a new network namespace that belongs to a new user
// namespace, whose root is nobody outside, as pods with hostUsers: false have.
func unsharedWithUser(path string) error {
	owned := []syscall.SysProcIDMap{{HostID: 1_000_000, Size: 65_536}}
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, UidMappings: owned, GidMappings: owned, Pdeathsig: unix.SIGKILL,
	}
	// The signal is tied to the thread that starts the child.
	return onThread(func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), path, "", unix.MS_BIND, "")
		// The mount holds the namespaces; how the child ends is no news.
		killed := cmd.Process.Kill()
		_ = cmd.Wait()
		return errors.Join(err, killed)
	})
}

// do runs fn on a thread that is in the namespace. A process or a socket that
// fn makes stays in it.
func (n *namespace) do(fn func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.fd); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.name, err)
		}
		return fn()
	})
}

// sysctl sets each key=value, as sysctl(8) has it.
func (n *namespace) sysctl(settings ...string) error {
	return n.do(func() error {
		for _, setting := range settings {
			key, value, _ := strings.Cut(setting, "=")
			path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
			if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
				return fmt.Errorf("set %s in %s: %w", key, n.name, err)
			}
		}
		return nil
	})
}

// close removes the name; the namespace goes when nothing is in it any more.
func (n *namespace) close() error {
	n.nl.Close()
	if err := n.fd.Close(); err != nil {
		return fmt.Errorf("close namespace %s: %w", n.name, err)
	}
	if err := unix.Unmount(n.path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount namespace %s: %w", n.name, err)
	}
	err := os.Remove(n.path)
	if known := filepath.Join(names, n.name); known != n.path {
		err = errors.Join(err, os.Remove(known))
	}
	return err
}

// onThread runs fn on a thread of its own that ends with it, so that what fn
// changes about the thread changes nothing else.
func onThread(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime ends the thread with the goroutine.
		runtime.LockOSThread()
		result <- fn()
	}()
	return <-result
}

// Stranger is a network namespace among those of a node's pods that is no pod.
type Stranger struct {
	Netns
}

// AddStranger mounts a network namespace with these addresses, on a device that
// leads nowhere, beside those of the node's pods.
func (n *Node) AddStranger(name string, ips ...netip.Addr) (*Stranger, error) {
	ns, err := newNamespace(name, filepath.Join(n.NetnsDir(), "cni-"+name), unshared)
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	if err := ns.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("make eth0 of %s: %w", name, err)
	}
	link, err := up(ns.nl, "eth0")
	if err != nil {
		return nil, err
	}
	for _, ip := range ips {
		if err := address(ns.nl, link, netip.PrefixFrom(ip, ip.BitLen())); err != nil {
			return nil, err
		}
	}
	return &Stranger{Netns{Name: name, ns: ns}}, nil
}

// Remove removes the namespace. It is the caller's to do: a lab's Close
// doesn't.
func (s *Stranger) Remove() error { return s.ns.close() }
