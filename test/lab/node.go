// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/nodevoy/nodevoy/test/lab/kubeproxy"
)

// Node is a network namespace that stands for a machine with pods.
type Node struct {
	// Name is the node's name, and its namespace's.
	Name string
	// IPs are its addresses on the LAN, v4 then v6.
	IPs []netip.Addr

	lab    *Lab
	number int
	ns     *namespace
	lan    netlink.Link // eth0
	plug   netlink.Link // its other end
	bridge netlink.Link
	// numbers are those of its pods that live.
	numbers map[int]bool
	proxy   kubeproxy.Proxy
	// procs are those of every generation.
	procs *[]*Process
	dir   string
	// generation is empty for the first agent and Envoy of the node.
	generation string
}

// AddNode adds a node to the LAN and to the objects, with routes from and to
// the pods of the nodes before it.
func (l *Lab) AddNode(name string) (*Node, error) {
	number := len(l.nodes) + 1
	n := &Node{Name: name, lab: l, number: number, dir: filepath.Join(Dir, name), numbers: map[int]bool{}, procs: new([]*Process)}
	others := l.nodes
	if err := errors.Join(os.MkdirAll(n.RunDir(), 0o755), os.MkdirAll(n.hostDir(), 0o755), os.MkdirAll(n.NetnsDir(), 0o755)); err != nil {
		return nil, fmt.Errorf("make directories of %s: %w", name, err)
	}
	// What a container runtime that was killed leaves behind.
	if err := os.WriteFile(filepath.Join(n.NetnsDir(), "cni-stale"), nil, 0o600); err != nil {
		return nil, err
	}
	var err error
	if n.ns, err = newNamespace(name, filepath.Join(names, name), unshared); err != nil {
		return nil, err
	}
	l.nodes = append(l.nodes, n)
	if err := errors.Join(n.configure(), n.joinLAN(), n.makeBridge()); err != nil {
		return nil, err
	}
	for _, other := range others {
		if err := errors.Join(n.routeTo(other), other.routeTo(n)); err != nil {
			return nil, err
		}
	}
	n.proxy = l.newProxy(n)
	l.objects.addNode(n)
	return n, nil
}

// joinLAN plugs the node into the LAN, whose router is its default gateway.
func (n *Node) joinLAN() error {
	var err error
	if n.lan, n.plug, err = n.lab.wire(end{n.ns, "eth0"}, end{nil, lanPrefix + n.Name}); err != nil {
		return err
	}
	if err := n.lab.nl.LinkSetMaster(n.plug, n.lab.lan); err != nil {
		return fmt.Errorf("join %s to the LAN: %w", n.Name, err)
	}
	ips, routers := lanPrefixes(n.number), lanPrefixes(router)
	if err := address(n.ns.nl, n.lan, ips...); err != nil {
		return err
	}
	for i, ip := range ips {
		n.IPs = append(n.IPs, ip.Addr())
		if err := route(n.ns.nl, n.lan, everything(ip.Addr()), routers[i].Addr()); err != nil {
			return err
		}
	}
	return nil
}

// configure makes the namespace a router that treats bridged packets as the
// lab's options say.
func (n *Node) configure() error {
	settings := []string{
		"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
		// What a distribution's defaults give a node.
		"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
	}
	if _, err := os.Stat("/proc/sys/net/bridge"); err == nil {
		value := 0
		if *n.lab.options.BridgeNetfilter {
			value = 1
		}
		settings = append(settings,
			fmt.Sprintf("net.bridge.bridge-nf-call-iptables=%d", value),
			fmt.Sprintf("net.bridge.bridge-nf-call-ip6tables=%d", value))
	}
	return n.ns.sysctl(settings...)
}

// makeBridge makes cni0, the gateway of the node's pods, when pods are on one.
func (n *Node) makeBridge() error {
	if n.lab.options.Veth != Bridge {
		return nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "cni0"
	// Left to itself a bridge takes the lowest of its ports' hardware addresses:
	// a pod that comes or goes could change the gateway's, which all the others
	// would go on using for seconds.
	attrs.HardwareAddr = hardwareAddress(n.podPrefixes(1)[0].Addr())
	if err := n.ns.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("make cni0 of %s: %w", n.Name, err)
	}
	var err error
	if n.bridge, err = up(n.ns.nl, "cni0"); err != nil {
		return err
	}
	return address(n.ns.nl, n.bridge, n.podPrefixes(1)...)
}

// podPrefixes are the addresses of the node's pod with this number; 1 is the
// pods' gateway.
func (n *Node) podPrefixes(number int) []netip.Prefix {
	return []netip.Prefix{prefix(podIP4, n.number, number), prefix(podIP6, n.number, number)}
}

// routeTo sends what is for the other node's pods to that node.
func (n *Node) routeTo(other *Node) error {
	for i, pods := range other.podPrefixes(0) {
		if err := route(n.ns.nl, n.lan, pods.Masked(), other.IPs[i]); err != nil {
			return fmt.Errorf("route from %s to %s: %w", n.Name, other.Name, err)
		}
	}
	return nil
}

// RunDir is the run directory of the node's agent and Envoy: nodes share the
// machine's /run.
func (n *Node) RunDir() string { return filepath.Join(n.dir, "run"+n.generation) }

// hostDir is where the generations of the node's agents take turns.
func (n *Node) hostDir() string { return filepath.Join(n.dir, "host") }

// Generation is the same node for the agent and Envoy of an update, which run
// beside those before them.
func (n *Node) Generation(name string) (*Node, error) {
	next := *n
	next.generation = "-" + name
	return &next, os.MkdirAll(next.RunDir(), 0o755)
}

// NetnsDir is where the network namespaces of the node's pods are mounted, each
// at a path that no other ever has, as container runtimes do in /run/netns.
func (n *Node) NetnsDir() string { return filepath.Join(n.dir, "netns") }

// Run runs a command on the node and returns its standard output; the error
// has its standard error.
func (n *Node) Run(ctx context.Context, argv ...string) (string, error) {
	return n.ns.run(ctx, "", argv...)
}

// Start starts a program on the node, with its output in a file of this name.
func (n *Node) Start(output string, argv ...string) (*Process, error) {
	p, err := n.ns.start(filepath.Join(n.dir, output), argv...)
	if err == nil {
		*n.procs = append(*n.procs, p)
	}
	return p, err
}

func (n *Node) killAll() error {
	var errs []error
	for _, p := range *n.procs {
		errs = append(errs, p.Kill())
	}
	return errors.Join(errs...)
}

// newProxy makes the stand-in for kube-proxy that the options ask for.
func (l *Lab) newProxy(n *Node) kubeproxy.Proxy {
	run := func(ctx context.Context, stdin string, argv ...string) (string, error) {
		return n.ns.run(ctx, stdin, argv...)
	}
	switch l.options.Proxy {
	case NoProxy:
		return noProxy{}
	case NFTables:
		return kubeproxy.NewNFTables(run, podRange4, podRange6)
	}
	return kubeproxy.NewIPTables(run, l.options.IPTables, podRange4, podRange6)
}

// noProxy does nothing.
type noProxy struct{}

// Sync does nothing.
func (noProxy) Sync(context.Context, []kubeproxy.Port) error { return nil }

func (n *Node) syncProxy(ctx context.Context) error {
	objects := n.lab.objects
	ports := kubeproxy.Ports(objects.services(), objects.slices())
	if err := n.proxy.Sync(ctx, ports); err != nil {
		return fmt.Errorf("sync kube-proxy of %s: %w", n.Name, err)
	}
	return nil
}

// Get reads a URL from the node's network namespace.
func (n *Node) Get(ctx context.Context, address string) (string, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, to string) (conn net.Conn, err error) {
			err = n.ns.do(func() error {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, to)
				return err
			})
			return conn, err
		},
	}}
	return get(ctx, client, address)
}
