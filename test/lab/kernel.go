// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Netns is a network namespace that nodevoy may put something into: a node's
// own or that of a pod.
type Netns struct {
	// Name is the node's or the pod's.
	Name string
	ns   *namespace
}

// Netns is the node's own network namespace.
func (n *Node) Netns() Netns { return Netns{Name: n.Name, ns: n.ns} }

// Netns is the pod's network namespace.
func (p *Pod) Netns() Netns { return Netns{Name: p.Name, ns: p.ns} }

// AllNetns are the node's own network namespace and those of its pods.
func (n *Node) AllNetns() []Netns {
	all := []Netns{n.Netns()}
	for _, pod := range n.lab.pods {
		if pod.Node == n {
			all = append(all, pod.Netns())
		}
	}
	return all
}

// Run runs a command in the network namespace and returns its standard output.
func (p Netns) Run(ctx context.Context, argv ...string) (string, error) {
	return p.ns.run(ctx, "", argv...)
}

// Listen takes a TCP port in the network namespace, as an application does.
func (p Netns) Listen(address string) (l net.Listener, err error) {
	err = p.ns.do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

// OwnRules are the lines of iptables-save, of both backends and families, that
// bear our name, those of `ip rule`, and our addresses; empty when nothing of
// ours is there.
func (p Netns) OwnRules(ctx context.Context) ([]string, error) {
	var lines []string
	commands := [][]string{
		{"iptables-nft-save"},
		{"ip6tables-nft-save"},
		{"iptables-legacy-save"},
		{"ip6tables-legacy-save"},
		{"ip", "-4", "rule"},
		{"ip", "-6", "rule"},
		{"ip", "addr", "show", "dev", "lo"},
	}
	for _, argv := range commands {
		out, err := p.Run(ctx, argv...)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			if ours(line) {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	return lines, nil
}

// OwnRules are those of the node's own network namespace: see Netns.OwnRules.
func (n *Node) OwnRules(ctx context.Context) ([]string, error) { return n.Netns().OwnRules(ctx) }

// ours says whether a line of the kernel's state is nodevoy's: by name, or by
// the numbers of its policy route and its addresses.
func ours(line string) bool {
	for _, mark := range []string{"nodevoy", "NODEVOY", "lookup 1064", "169.254.64.15", "fd6e:6f64:6576:6f79:"} {
		if strings.Contains(line, mark) {
			return true
		}
	}
	return false
}

// OwnSets are the names of our ipsets in the network namespace.
func (p Netns) OwnSets(ctx context.Context) ([]string, error) {
	out, err := p.Run(ctx, "ipset", "list", "-n")
	if err != nil {
		return nil, err
	}
	var sets []string
	for name := range strings.FieldsSeq(out) {
		if ours(name) {
			sets = append(sets, name)
		}
	}
	return sets, nil
}

// Own is all there is of nodevoy in the network namespace, a line each: rules, routes,
// addresses, and sets with their members, without what changes by itself.
// The lines are sorted.
func (p Netns) Own(ctx context.Context) ([]string, error) {
	lines, err := p.OwnRules(ctx)
	if err != nil {
		return nil, err
	}
	sets, err := p.OwnSets(ctx)
	if err != nil {
		return nil, err
	}
	for _, set := range sets {
		out, err := p.Run(ctx, "ipset", "save", set)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			lines = append(lines, stable(line))
		}
	}
	slices.Sort(lines)
	return lines, nil
}

// stable is a line of `ipset save` without what differs from time to time: the
// seconds left to a member, and the size and random number of a set's table.
func stable(line string) string {
	for _, from := range []string{" hashsize ", " timeout "} {
		line, _, _ = strings.Cut(line, from)
	}
	return strings.TrimSpace(line)
}

// Own is what is there of nodevoy on the node and in its pods: see Netns.Own.
func (n *Node) Own(ctx context.Context) ([]string, error) {
	var all []string
	for _, ns := range n.AllNetns() {
		lines, err := ns.Own(ctx)
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			all = append(all, ns.Name+": "+line)
		}
	}
	return all, nil
}

// podSet is the ipset with the enrolled pods of an address's family.
func podSet(ip netip.Addr) string {
	if ip.Is4() {
		return "nodevoy-pods4"
	}
	return "nodevoy-pods6"
}

// Has says whether an ipset of the network namespace has an address, or an address and TCP
// port unless the port is 0; a set that isn't there has nothing.
func (p Netns) Has(set string, addr netip.Addr, port uint16) bool {
	entry := &netlink.IPSetEntry{IP: addr.AsSlice()}
	if port != 0 {
		tcp := uint8(unix.IPPROTO_TCP)
		entry.Port, entry.Protocol = &port, &tcp
	}
	// Where the set is missing, its namespace is not ours, or ends: the same.
	found, err := p.ns.nl.IpsetTest(set, entry)
	return err == nil && found
}

// redirects are the network namespaces whose kernel redirects connections from the address:
// it asks the ipsets, not the agent.
func (p *Pod) redirects(ip netip.Addr) []string {
	var names []string
	for _, ns := range []Netns{p.Node.Netns(), p.Netns()} {
		if ns.Has(podSet(ip), ip, 0) {
			names = append(names, ns.Name)
		}
	}
	return names
}

// Redirected returns an error unless a kernel redirects the pod's connections,
// and only there where the lab's mode has it.
func (p *Pod) Redirected(context.Context) error {
	for _, ip := range p.IPs {
		names := p.redirects(ip)
		want := names
		switch p.Node.lab.options.Mode {
		case Host:
			want = []string{p.Node.Name}
		case Pods:
			want = []string{p.Name}
		}
		if len(names) == 0 || !slices.Equal(names, want) {
			return fmt.Errorf("%s of pod %s is redirected in %q, want %q", ip, p.Name, names, want)
		}
	}
	return nil
}

// NotRedirected returns an error when a kernel redirects the pod's connections.
func (p *Pod) NotRedirected(context.Context) error {
	for _, ip := range p.IPs {
		if names := p.redirects(ip); len(names) > 0 {
			return fmt.Errorf("%s of pod %s is still redirected in %q", ip, p.Name, names)
		}
	}
	return nil
}
