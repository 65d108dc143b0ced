// SPDX-License-Identifier: Apache-2.0

package space

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Wiring is how pods are connected to their node.
type Wiring string

// The wirings.
const (
	// Bridged: veths on a bridge that has the gateway's addresses.
	Bridged Wiring = "bridge"
	// Unnumbered: veths without an address, and a route to each pod.
	Unnumbered Wiring = "unnumbered"
)

// The pods' addresses end in their number, from 2 on; the bridge has 1.
const (
	podRange4 = "10.1.0."
	podRange6 = "fd01::"
	// gateway4 is nobody's; the node answers ARP for it on unnumbered veths.
	gateway4 = "169.254.1.1"
	gateway6 = "fe80::1"
	bridge   = "br0"
)

// Pod is the network namespace of a pod on the node.
type Pod struct {
	ns     netns.NsHandle
	inside *netlink.Handle
	V4, V6 netip.Addr
	// mounted is the path at which it is mounted, if it is.
	mounted string
}

// Bridge makes the bridge that Bridged pods need, frames of which iptables sees
// or not.
func (n *Node) Bridge(netfilter bool) {
	n.t.Helper()
	value := map[bool]string{true: "1", false: "0"}[netfilter]
	n.Sysctl("net/bridge/bridge-nf-call-iptables=" + value)
	n.Sysctl("net/bridge/bridge-nf-call-ip6tables=" + value)
	n.ok(n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}))
	n.up(bridge)
	n.address(n.nl, bridge, podRange4+"1/24")
	n.address(n.nl, bridge, podRange6+"1/64")
}

// Pod adds a pod.
func (n *Node) Pod(w Wiring) *Pod {
	n.t.Helper()
	var ns netns.NsHandle
	n.ok(onThread(func() (err error) {
		ns, err = netns.New()
		return err
	}))
	return n.connect(ns, w)
}

// UserPod adds a pod that has a user namespace of its own: root in it is nobody
// on the node.
func (n *Node) UserPod(w Wiring) *Pod {
	n.t.Helper()
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	n.ok(cmd.Start())
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	ns, err := netns.GetFromPid(cmd.Process.Pid)
	n.ok(err)
	return n.connect(ns, w)
}

// connect makes a network namespace a pod of the node.
func (n *Node) connect(ns netns.NsHandle, w Wiring) *Pod {
	n.t.Helper()
	n.pods++
	number := n.pods + 1
	p := &Pod{
		ns: ns,
		V4: netip.MustParseAddr(fmt.Sprintf("%s%d", podRange4, number)),
		V6: netip.MustParseAddr(fmt.Sprintf("%s%x", podRange6, number)),
	}
	host := fmt.Sprintf("veth%d", number)
	n.ok(n.nl.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: host}, PeerName: "eth0", PeerNamespace: netlink.NsFd(p.ns),
	}))
	inside, err := netlink.NewHandleAt(p.ns, unix.NETLINK_ROUTE)
	n.ok(err)
	p.inside = inside
	n.t.Cleanup(func() {
		_ = inside.Close()
		_ = p.ns.Close()
	})
	for _, link := range []string{"lo", "eth0"} {
		l, err := inside.LinkByName(link)
		n.ok(err)
		n.ok(inside.LinkSetUp(l))
	}
	n.up(host)
	if w == Bridged {
		n.wireBridged(inside, host, p)
	} else {
		n.wireUnnumbered(inside, host, p)
	}
	return p
}

func (n *Node) wireBridged(inside *netlink.Handle, host string, p *Pod) {
	n.t.Helper()
	l, err := n.nl.LinkByName(host)
	n.ok(err)
	br, err := n.nl.LinkByName(bridge)
	n.ok(err)
	n.ok(n.nl.LinkSetMaster(l, br))
	n.address(inside, "eth0", p.V4.String()+"/24")
	n.address(inside, "eth0", p.V6.String()+"/64")
	for _, gateway := range []string{podRange4 + "1", podRange6 + "1"} {
		n.ok(inside.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)}))
	}
}

func (n *Node) wireUnnumbered(inside *netlink.Handle, host string, p *Pod) {
	n.t.Helper()
	n.Sysctl("net/ipv4/conf/" + host + "/proxy_arp=1")
	n.Sysctl("net/ipv4/neigh/" + host + "/proxy_delay=0")
	l, err := n.nl.LinkByName(host)
	n.ok(err)
	n.address(n.nl, host, gateway6+"/64")
	for _, a := range []netip.Addr{p.V4, p.V6} {
		n.ok(n.nl.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: single(a), Scope: unix.RT_SCOPE_LINK}))
	}
	eth0, err := inside.LinkByName("eth0")
	n.ok(err)
	n.address(inside, "eth0", p.V4.String()+"/32")
	n.address(inside, "eth0", p.V6.String()+"/128")
	index := eth0.Attrs().Index
	n.ok(inside.RouteAdd(&netlink.Route{LinkIndex: index, Dst: single(netip.MustParseAddr(gateway4)), Scope: unix.RT_SCOPE_LINK}))
	for _, gateway := range []string{gateway4, gateway6} {
		n.ok(inside.RouteAdd(&netlink.Route{LinkIndex: index, Gw: net.ParseIP(gateway)}))
	}
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func (n *Node) address(nl *netlink.Handle, link, prefix string) {
	n.t.Helper()
	l, err := nl.LinkByName(link)
	n.ok(err)
	a, err := netlink.ParseAddr(prefix)
	n.ok(err)
	if a.IP.To4() == nil {
		// Duplicate address detection takes a second, and nobody else is here.
		a.Flags = unix.IFA_F_NODAD
	}
	n.ok(nl.AddrAdd(l, a))
}

func (n *Node) ok(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// Mount mounts the pod's network namespace at a path, as container runtimes do.
func (p *Pod) Mount(n *Node, path string) {
	n.t.Helper()
	n.ok(os.WriteFile(path, nil, 0o600))
	n.ok(p.Do(func() error { return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "") }))
	p.mounted = path
	n.t.Cleanup(func() { n.ok(p.unmount()) })
}

// Delete takes the pod's network namespace from under its path, as container
// runtimes do when a pod is deleted. Its links go with it once nobody holds it.
func (p *Pod) Delete(n *Node) {
	n.t.Helper()
	n.ok(p.unmount())
	_ = p.inside.Close()
	n.ok(p.ns.Close())
}

func (p *Pod) unmount() error {
	if p.mounted == "" {
		return nil
	}
	path := p.mounted
	p.mounted = ""
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return os.Remove(path)
}

// Address puts another address on the pod's link, or takes one off.
func (p *Pod) Address(n *Node, prefix string, on bool) {
	n.t.Helper()
	l, err := p.inside.LinkByName("eth0")
	n.ok(err)
	a, err := netlink.ParseAddr(prefix)
	n.ok(err)
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	if on {
		n.ok(p.inside.AddrAdd(l, a))
		return
	}
	n.ok(p.inside.AddrDel(l, a))
}

// Run runs a command in the pod and returns its standard output. A failure ends
// the test.
func (p *Pod) Run(n *Node, command string) (out string) {
	n.t.Helper()
	n.ok(p.Do(func() (err error) {
		out, err = run(command, "")
		return err
	}))
	return out
}

// Do runs fn in the pod's network namespace.
func (p *Pod) Do(fn func() error) error {
	return onThread(func() error {
		if err := netns.Set(p.ns); err != nil {
			return fmt.Errorf("enter pod: %w", err)
		}
		return fn()
	})
}

// onThread runs fn on a thread of its own that ends with it.
func onThread(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime ends the thread with the goroutine.
		runtime.LockOSThread()
		result <- fn()
	}()
	return <-result
}
