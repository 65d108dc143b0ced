// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
)

// gonePrefix begins the names of the nodes' ends of the cables of pods that
// were removed.
const gonePrefix = "gone"

// join joins the pod to its node.
func (p *Pod) join() error {
	inside, outside, err := p.Node.lab.wire(end{p.ns, "eth0"}, end{p.Node.ns, fmt.Sprintf("veth%d", p.serial)})
	if err != nil {
		return err
	}
	p.plug = outside
	if p.Node.lab.options.Veth == Routed {
		return p.joinRouted(inside, p.prefixes())
	}
	// A device's address that follows from the pod's: neighbours that remember an
	// earlier pod of the same address reach this one. Bridge plugins announce new
	// pods to the same end.
	if err := p.ns.nl.LinkSetHardwareAddr(inside, hardwareAddress(p.prefixes()[0].Addr())); err != nil {
		return fmt.Errorf("set the hardware address of %s: %w", p.Name, err)
	}
	// A port in hairpin mode, as kubelet has it: a pod can reach itself by a
	// Service.
	if err := errors.Join(p.Node.ns.nl.LinkSetMaster(outside, p.Node.bridge), p.Node.ns.nl.LinkSetHairpin(outside, true)); err != nil {
		return err
	}
	return p.joinBridge(inside, p.prefixes())
}

// hardwareAddress is a locally administered one, for an IPv4 address.
func hardwareAddress(ip netip.Addr) net.HardwareAddr {
	return append(net.HardwareAddr{0x0a, 0x58}, ip.AsSlice()...)
}

// joinBridge gives the pod these addresses and routes, on cni0.
func (p *Pod) joinBridge(inside netlink.Link, prefixes []netip.Prefix) error {
	if err := address(p.ns.nl, inside, prefixes...); err != nil {
		return err
	}
	for _, gateway := range p.Node.podPrefixes(1) {
		for _, own := range prefixes {
			if own.Addr().Is4() != gateway.Addr().Is4() {
				continue
			}
			if err := route(p.ns.nl, inside, everything(gateway.Addr()), gateway.Addr()); err != nil {
				return err
			}
			p.IPs = append(p.IPs, own.Addr())
		}
	}
	return nil
}

// joinRouted gives the pod single addresses and a gateway that exists only as
// a neighbour entry, and the node a route to each address: no device on the
// node's side has an address.
func (p *Pod) joinRouted(inside netlink.Link, prefixes []netip.Prefix) error {
	for _, prefix := range prefixes {
		ip, gateway := prefix.Addr(), netip.MustParseAddr("169.254.1.1")
		if ip.Is6() {
			gateway = netip.MustParseAddr("fe80::1")
		}
		single := netip.PrefixFrom(ip, ip.BitLen())
		if err := errors.Join(
			address(p.ns.nl, inside, single),
			neighbour(p.ns.nl, inside, gateway, p.plug.Attrs().HardwareAddr),
			route(p.ns.nl, inside, everything(ip), gateway),
			route(p.Node.ns.nl, p.plug, single, netip.Addr{}),
			neighbour(p.Node.ns.nl, p.plug, ip, inside.Attrs().HardwareAddr),
		); err != nil {
			return err
		}
		p.IPs = append(p.IPs, ip)
	}
	return nil
}

// GainIPv6 gives a pod that was made without IPv6 its IPv6 address, and says so
// in its object.
func (p *Pod) GainIPv6() error {
	if !p.spec.IPv4Only || p.spec.NoIPv6 {
		return fmt.Errorf("pod %s can't gain IPv6", p.Name)
	}
	inside, err := p.ns.nl.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("find eth0 of %s: %w", p.Name, err)
	}
	p.spec.IPv4Only = false
	join := p.joinBridge
	if p.Node.lab.options.Veth == Routed {
		join = p.joinRouted
	}
	if err := join(inside, p.prefixes()[1:]); err != nil {
		return fmt.Errorf("give %s IPv6: %w", p.Name, err)
	}
	p.Node.lab.objects.addPod(p)
	return nil
}

// Unplug cuts the pod off, as the first step of its removal. The node's end of
// its cable stays, down and under another name, for as long as the pod's
// namespace lives.
func (p *Pod) Unplug() error {
	if p.cut {
		return nil
	}
	p.cut = true
	nl := p.Node.ns.nl
	if err := errors.Join(nl.LinkSetDown(p.plug), nl.LinkSetNoMaster(p.plug)); err != nil {
		return fmt.Errorf("unplug %s: %w", p.Name, err)
	}
	if err := nl.LinkSetName(p.plug, fmt.Sprintf("%s%d", gonePrefix, p.serial)); err != nil {
		return fmt.Errorf("rename the cable of %s: %w", p.Name, err)
	}
	// A socket that was closed with something left to say keeps its namespace
	// for up to two minutes, unless it is told to give up.
	return p.ns.sysctl("net.ipv4.tcp_orphan_retries=1")
}

// Lingering returns an error that names the pods which were removed and whose
// network namespaces live on: somebody holds them by a descriptor, a mount or a
// socket. The kernel itself needs a moment to be rid of a namespace.
func (l *Lab) Lingering() error {
	var names []string
	for _, node := range l.nodes {
		links, err := node.ns.nl.LinkList()
		if err != nil {
			return fmt.Errorf("list devices of %s: %w", node.Name, err)
		}
		for _, link := range links {
			if strings.HasPrefix(link.Attrs().Name, gonePrefix) {
				names = append(names, node.Name+"/"+link.Attrs().Name)
			}
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("namespaces of %d removed pods live on: %s", len(names), strings.Join(names, ", "))
	}
	return nil
}
