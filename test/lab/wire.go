// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// end is one end of a veth pair.
type end struct {
	ns   *namespace // nil is the lab's own namespace
	name string
}

// wire joins two namespaces by a veth pair, both ends up.
func (l *Lab) wire(a, b end) (aLink, bLink netlink.Link, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a.name
	attrs.Namespace = netlink.NsFd(a.ns.fd)
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: b.name}
	bHandle := l.nl
	if b.ns != nil {
		pair.PeerNamespace = netlink.NsFd(b.ns.fd)
		bHandle = b.ns.nl
	}
	if err := l.nl.LinkAdd(pair); err != nil {
		return nil, nil, fmt.Errorf("make veth %s: %w", b.name, err)
	}
	if aLink, err = up(a.ns.nl, a.name); err != nil {
		return nil, nil, err
	}
	if bLink, err = up(bHandle, b.name); err != nil {
		return nil, nil, err
	}
	return aLink, bLink, errors.Join(carries(a.ns.nl, a.name), carries(bHandle, b.name))
}

// carries waits until a device that was set up takes packets: until then the
// kernel drops them.
func carries(nl *netlink.Handle, name string) error {
	limit, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	return Until(limit, name+" to carry packets", func() error {
		link, err := nl.LinkByName(name)
		if err != nil {
			return err
		}
		if state := link.Attrs().OperState; state != netlink.OperUp {
			return fmt.Errorf("it is %s", state)
		}
		return nil
	})
}

func up(nl *netlink.Handle, name string) (netlink.Link, error) {
	link, err := nl.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	if err := nl.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set %s up: %w", name, err)
	}
	return link, nil
}

// address gives a device its addresses, usable at once.
func address(nl *netlink.Handle, link netlink.Link, prefixes ...netip.Prefix) error {
	for _, p := range prefixes {
		addr := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := nl.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add %s to %s: %w", p, link.Attrs().Name, err)
		}
		if err := settled(nl, p.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// settled waits until the kernel takes packets for an address that was added:
// IPv6 has it so only a moment later, and CNI plugins wait for it as well.
func settled(nl *netlink.Handle, ip netip.Addr) error {
	if ip.Is4() {
		return nil
	}
	limit, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	return Until(limit, ip.String()+" to be usable", func() error {
		routes, err := nl.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(routes, func(r netlink.Route) bool {
			return r.Dst != nil && r.Dst.IP.Equal(ip.AsSlice()) && r.Type == unix.RTN_LOCAL
		}) {
			return errors.New("it is not local yet")
		}
		return nil
	})
}

// route sends what is for dst to a gateway, or out of the device when there is
// none.
func route(nl *netlink.Handle, link netlink.Link, dst netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst)}
	if via.IsValid() {
		r.Gw = via.AsSlice()
		r.SetFlag(netlink.FLAG_ONLINK)
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := nl.RouteAdd(r); err != nil {
		return fmt.Errorf("route %s by %s: %w", dst, link.Attrs().Name, err)
	}
	return nil
}

// neighbour tells a device the hardware address of an IP address.
func neighbour(nl *netlink.Handle, link netlink.Link, ip netip.Addr, mac net.HardwareAddr) error {
	n := &netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: mac}
	if err := nl.NeighAdd(n); err != nil {
		return fmt.Errorf("add neighbour %s: %w", ip, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// everything is the default route's destination, of an address's family.
func everything(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
