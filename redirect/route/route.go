// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Foreign is a policy rule, whoever made it, that looks at the mark.
type Foreign struct {
	Mark, Mask      uint32
	Table, Priority int
}

// Network is the addresses and routes of the network namespace it was opened in.
type Network struct {
	handle *netlink.Handle
}

// Open opens a socket of its own to the kernel's routing.
func Open() (*Network, error) {
	h, err := netlink.NewHandleWithOptions(netlink.HandleOptions{RetryInterrupted: true}, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink socket: %w", err)
	}
	return &Network{handle: h}, nil
}

// Close closes the socket.
func (n *Network) Close() error { return n.handle.Close() }

// forever is the lifetime that doesn't end (INFINITY_LIFE_TIME).
const forever = math.MaxUint32

// loopback is the index of the interface lo, in every network namespace.
const loopback = 1

// Addresses are the addresses of one family on lo.
func (n *Network) Addresses(f family.Family) ([]netip.Addr, error) {
	list, err := n.handle.AddrList(loLink(), int(f))
	if err != nil {
		return nil, fmt.Errorf("list %s addresses of lo: %w", f, err)
	}
	var addrs []netip.Addr
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs, nil
}

// servicesDevice has the cluster IPs where kube-proxy runs in IPVS mode: one more
// with each Service, and nothing of the node's. kube-proxy itself keeps everybody
// from reaching the node at them.
const servicesDevice = "kube-ipvs0"

// Local lists the addresses of one family that the kernel takes for its own: those
// of all interfaces, and those that have a local route, as load balancers of clouds
// set up.
func (n *Network) Local(f family.Family) ([]netip.Prefix, error) {
	except := 0
	if link, err := n.handle.LinkByName(servicesDevice); err == nil {
		except = link.Attrs().Index
	} else if !errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, fmt.Errorf("find %s: %w", servicesDevice, err)
	}
	filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}
	routes, err := n.handle.RouteListFiltered(int(f), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return nil, fmt.Errorf("list %s local routes: %w", f, err)
	}
	prefixes := make([]netip.Prefix, 0, len(routes))
	for _, route := range routes {
		if route.Dst == nil || route.LinkIndex == except {
			continue
		}
		ones, _ := route.Dst.Mask.Size()
		if ip, ok := netip.AddrFromSlice(route.Dst.IP); ok {
			prefixes = append(prefixes, netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	return prefixes, nil
}

// AddAddress puts an address on lo, so that nothing chooses it to speak to others.
func (n *Network) AddAddress(addr netip.Addr) error {
	if err := n.handle.AddrReplace(loLink(), loAddress(addr)); err != nil {
		return fmt.Errorf("add address %s to lo: %w", addr, err)
	}
	return nil
}

// DeleteAddress takes an address off lo.
func (n *Network) DeleteAddress(addr netip.Addr) error {
	err := n.handle.AddrDel(loLink(), loAddress(addr))
	if err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		return fmt.Errorf("delete address %s from lo: %w", addr, err)
	}
	return nil
}

func loLink() netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: loopback, Name: "lo"}}
}

func loAddress(addr netip.Addr) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}}
	if addr.Is4() {
		a.Scope = unix.RT_SCOPE_HOST
	} else {
		// IPv6 has no scope host. An address that is deprecated is not chosen
		// as a source; else the node's own connections to fd00::/8, Envoy's to
		// pods among them, would come from it, and no answer would come back.
		a.Flags = unix.IFA_F_NODAD
		a.ValidLft, a.PreferedLft = forever, 0
	}
	return a
}

// AddRule makes the rule and the route of its table.
func (n *Network) AddRule(r netfilter.PolicyRule) error {
	there, err := n.HasRule(r)
	if err != nil {
		return err
	}
	// The route first: a rule that leads to an empty table hides nothing, but
	// there is no reason for the moment in between.
	if err := n.handle.RouteReplace(kernelRoute(r)); err != nil {
		return fmt.Errorf("add %s local route of table %d: %w", r.Family, r.Table, err)
	}
	if there {
		return nil
	}
	if err := n.handle.RuleAdd(kernelRule(r)); err != nil && !errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("add %s rule for mark %#x: %w", r.Family, r.Mark, err)
	}
	return nil
}

// DeleteRule removes the rule and the route of its table.
func (n *Network) DeleteRule(r netfilter.PolicyRule) error {
	err := n.handle.RuleDel(kernelRule(r))
	if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EOPNOTSUPP) {
		// The kernel was started without the family.
		return nil
	}
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("delete %s rule for mark %#x: %w", r.Family, r.Mark, err)
	}
	err = n.handle.RouteDel(kernelRoute(r))
	// IPv6 says ENOENT when there is not even the table.
	if err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("delete %s local route of table %d: %w", r.Family, r.Table, err)
	}
	return nil
}

// HasRule says whether both the rule and its route are there.
func (n *Network) HasRule(r netfilter.PolicyRule) (bool, error) {
	rules, err := n.Marks(r.Family)
	if err != nil {
		return false, err
	}
	found := false
	for _, f := range rules {
		found = found || f == Foreign{Mark: r.Mark, Mask: r.Mark, Table: r.Table, Priority: r.Priority}
	}
	if !found {
		return false, nil
	}
	filter := &netlink.Route{Table: r.Table, Type: unix.RTN_LOCAL}
	routes, err := n.handle.RouteListFiltered(int(r.Family), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return false, fmt.Errorf("list %s routes of table %d: %w", r.Family, r.Table, err)
	}
	for _, route := range routes {
		if ones, _ := route.Dst.Mask.Size(); route.LinkIndex == loopback && ones == 0 {
			return true, nil
		}
	}
	return false, nil
}

// Marks lists the policy rules that look at the packet mark, ours included.
func (n *Network) Marks(f family.Family) ([]Foreign, error) {
	list, err := n.handle.RuleList(int(f))
	if err != nil {
		return nil, fmt.Errorf("list %s policy rules: %w", f, err)
	}
	var found []Foreign
	for _, r := range list {
		mask := uint32(0xffffffff)
		if r.Mask != nil {
			mask = *r.Mask
		}
		if r.Mark != 0 {
			found = append(found, Foreign{Mark: r.Mark, Mask: mask, Table: r.Table, Priority: r.Priority})
		}
	}
	return found, nil
}

// Bridged names a veth that is a port of a bridge whose frames iptables sees
// (br_netfilter); empty when there is none.
func (n *Network) Bridged(f family.Family) (string, error) {
	value, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-" + family.Pick(f, "iptables", "ip6tables"))
	if errors.Is(err, os.ErrNotExist) || (err == nil && strings.TrimSpace(string(value)) == "0") {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	links, err := n.handle.LinkList()
	if err != nil {
		return "", fmt.Errorf("list interfaces: %w", err)
	}
	bridges := map[int]bool{}
	for _, l := range links {
		bridges[l.Attrs().Index] = l.Type() == "bridge"
	}
	for _, l := range links {
		if l.Type() == "veth" && bridges[l.Attrs().MasterIndex] {
			return l.Attrs().Name, nil
		}
	}
	return "", nil
}

func kernelRule(r netfilter.PolicyRule) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Priority = int(r.Family), r.Table, r.Priority
	rule.Mark, rule.Mask = r.Mark, &r.Mark
	return rule
}

func kernelRoute(r netfilter.PolicyRule) *netlink.Route {
	any4 := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	any6 := &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	return &netlink.Route{
		Family: int(r.Family), Table: r.Table, LinkIndex: loopback,
		Dst: family.Pick(r.Family, any4, any6), Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
	}
}
