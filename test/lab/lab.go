// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// Dir holds the objects and, for each node, sockets and logs.
const Dir = "/run/lab"

// lanPrefix begins the name of every network device outside nodes and pods.
const lanPrefix = "lab-"

// The address plan: nodes are on one LAN, each has a range of pod addresses,
// and Services have theirs. N and P stand for the number of node and pod.
const (
	nodeIP4, nodeIP6 = "172.30.0.%d/24", "fd00:30::%x/64"         // N
	podIP4, podIP6   = "10.244.%d.%d/24", "fd00:10:244:%x::%x/64" // N, P
	podRange4        = "10.244.0.0/16"
	podRange6        = "fd00:10:244::/48"
)

// Veth says how pods are joined to their node.
type Veth int

// The ways to join pods to a node.
const (
	// Bridge puts pods on a bridge named cni0, as flannel and kindnet do.
	Bridge Veth = iota
	// Routed gives each pod a veth that has no address on the node's side and
	// a route of its own, as Calico and the AWS VPC CNI do.
	Routed
)

// Proxy says which kube-proxy a lab's stand-in takes after.
type Proxy string

// The kinds of kube-proxy.
const (
	IPTables Proxy = "iptables"
	NFTables Proxy = "nftables"
	// NoProxy is a node that does nothing about cluster IPs.
	NoProxy Proxy = "none"
)

// Mode is the mode of redirection that agents are told.
type Mode string

// The modes.
const (
	Auto Mode = "auto"
	Pods Mode = "pod"
	Host Mode = "host"
)

// Options are what laboratories differ in. The zero value is a bridge and
// kube-proxy in iptables mode, with the machine's default iptables.
type Options struct {
	Veth Veth
	// BridgeNetfilter sets net.bridge.bridge-nf-call-iptables; nil is as found
	// on the machine.
	BridgeNetfilter *bool
	Proxy           Proxy
	// IPTables is the backend, "nft" or "legacy", of the stand-in in iptables
	// mode; empty is the machine's default.
	IPTables string
	// Mode is empty for the agent's own default.
	Mode Mode
}

// Lab is one lab. Its methods are not safe for concurrent use; those of
// the processes it starts are.
type Lab struct {
	options Options
	nl      *netlink.Handle
	lan     netlink.Link
	nodes   []*Node
	pods    []*Pod
	objects *Objects
	// made counts the pods ever made.
	made int
}

// New makes an empty lab: a LAN and no node. There is one at a time.
func New(options Options) (*Lab, error) {
	if options.Proxy == "" {
		options.Proxy = IPTables
	}
	if options.BridgeNetfilter == nil {
		found := BridgeNetfilter()
		options.BridgeNetfilter = &found
	}
	l := &Lab{options: options}
	var err error
	if l.objects, err = newObjects(filepath.Join(Dir, "objects")); err != nil {
		return nil, err
	}
	if l.nl, err = netlink.NewHandle(); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = lanPrefix + "lan"
	l.lan = &netlink.Bridge{LinkAttrs: attrs}
	if err := l.nl.LinkAdd(l.lan); err != nil {
		return nil, fmt.Errorf("make LAN: %w", err)
	}
	// The LAN stands for a switch, which has no packet filter.
	for _, key := range []string{"iptables", "ip6tables"} {
		path := "/proc/sys/net/bridge/bridge-nf-call-" + key
		if err := os.WriteFile(path, []byte("0"), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("set %s: %w", path, err)
		}
	}
	return l, errors.Join(l.nl.LinkSetUp(l.lan), address(l.nl, l.lan, lanPrefixes(router)...))
}

// Objects are the Kubernetes objects of the lab; changes to them count
// from the next Publish on.
func (l *Lab) Objects() *Objects { return l.objects }

// ObjectsDir is the directory of YAML that Publish writes and agents read.
func (l *Lab) ObjectsDir() string { return l.objects.dir }

// SetMode changes the mode that agents are told from now on.
func (l *Lab) SetMode(mode Mode) { l.options.Mode = mode }

// Publish writes the objects that have changed and brings the stand-in for
// kube-proxy of every node up to date.
func (l *Lab) Publish(ctx context.Context) error {
	if err := l.PublishObjects(); err != nil {
		return err
	}
	return l.SyncProxies(ctx)
}

// PublishObjects is Publish without the stand-in for kube-proxy, to which pods
// mean nothing.
func (l *Lab) PublishObjects() error { return l.objects.write() }

// SyncProxies has every node's stand-in for kube-proxy write its rules again,
// as kube-proxy does when it sees that they were flushed.
func (l *Lab) SyncProxies(ctx context.Context) error {
	var errs []error
	for _, node := range l.nodes {
		errs = append(errs, node.syncProxy(ctx))
	}
	return errors.Join(errs...)
}

// Close ends every process and removes every namespace and device.
func (l *Lab) Close() error {
	var errs []error
	for _, node := range l.nodes {
		errs = append(errs, node.killAll())
	}
	for _, pod := range l.pods {
		errs = append(errs, pod.close())
	}
	for _, node := range l.nodes {
		// By hand: the kernel takes its time to remove a namespace's devices.
		if node.plug != nil {
			errs = append(errs, l.nl.LinkDel(node.plug))
		}
		errs = append(errs, node.ns.close())
	}
	errs = append(errs, l.nl.LinkDel(l.lan), os.RemoveAll(Dir))
	l.nl.Close()
	return errors.Join(errs...)
}

// router is the number that the LAN's router has among the nodes.
const router = 254

// lanPrefixes are a node's addresses on the LAN.
func lanPrefixes(number int) []netip.Prefix {
	return []netip.Prefix{prefix(nodeIP4, number), prefix(nodeIP6, number)}
}

// prefix makes an address with its network out of a line of the address plan.
func prefix(format string, args ...any) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(format, args...))
}
