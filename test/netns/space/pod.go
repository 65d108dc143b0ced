// SPDX-License-Identifier: Apache-2.0

package space

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"

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
	V4, V6 netip.Addr
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
	n.pods++
	number := n.pods + 1
	p := &Pod{
		V4: netip.MustParseAddr(fmt.Sprintf("%s%d", podRange4, number)),
		V6: netip.MustParseAddr(fmt.Sprintf("%s%x", podRange6, number)),
	}
	n.ok(onThread(func() error {
		ns, err := netns.New()
		p.ns = ns
		return err
	}))
	host := fmt.Sprintf("veth%d", number)
	n.ok(n.nl.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: host}, PeerName: "eth0", PeerNamespace: netlink.NsFd(p.ns),
	}))
	inside, err := netlink.NewHandleAt(p.ns, unix.NETLINK_ROUTE)
	n.ok(err)
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
