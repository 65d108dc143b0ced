// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// Pod is a network namespace that stands for a pod of a node.
type Pod struct {
	// Namespace and Name are the pod's; its network namespace has Name.
	Namespace, Name string
	// IPs are its addresses, v4 then v6.
	IPs []netip.Addr
	// Node is where it runs.
	Node *Node

	number int
	ns     *namespace
	server *Process
}

// AddPod adds a pod to the node and to the objects, with these labels. Pod
// names are to be unique in the laboratory.
func (n *Node) AddPod(namespace, name string, labels map[string]string) (*Pod, error) {
	n.pods++
	p := &Pod{Namespace: namespace, Name: name, Node: n, number: n.pods + 1}
	var err error
	if p.ns, err = newNamespace(name); err != nil {
		return nil, err
	}
	n.lab.pods = append(n.lab.pods, p)
	veth := fmt.Sprintf("veth%d", p.number)
	inside, outside, err := n.lab.wire(end{p.ns, "eth0"}, end{n.ns, veth})
	if err != nil {
		return nil, err
	}
	for _, prefix := range n.podPrefixes(p.number) {
		p.IPs = append(p.IPs, prefix.Addr())
	}
	join := p.joinBridge
	if n.lab.options.Veth == Routed {
		join = p.joinRouted
	}
	if err := join(inside, outside); err != nil {
		return nil, fmt.Errorf("join pod %s to %s: %w", name, n.Name, err)
	}
	n.lab.objects.addPod(p, labels)
	return p, nil
}

// joinBridge puts the pod on cni0. Its port is in hairpin mode, as kubelet
// has it, so a pod can reach itself by a Service.
func (p *Pod) joinBridge(inside, outside netlink.Link) error {
	node := p.Node
	if err := node.ns.nl.LinkSetMaster(outside, node.bridge); err != nil {
		return err
	}
	if err := node.ns.nl.LinkSetHairpin(outside, true); err != nil {
		return err
	}
	if err := address(p.ns.nl, inside, node.podPrefixes(p.number)...); err != nil {
		return err
	}
	for _, gateway := range node.podPrefixes(1) {
		if err := route(p.ns.nl, inside, everything(gateway.Addr()), gateway.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// joinRouted gives the pod single addresses and a gateway that exists only as
// a neighbour entry, and the node a route to each address: no device on the
// node's side has an address.
func (p *Pod) joinRouted(inside, outside netlink.Link) error {
	gateways := []netip.Addr{netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("fe80::1")}
	for i, ip := range p.IPs {
		single := netip.PrefixFrom(ip, ip.BitLen())
		if err := errors.Join(
			address(p.ns.nl, inside, single),
			neighbour(p.ns.nl, inside, gateways[i], outside.Attrs().HardwareAddr),
			route(p.ns.nl, inside, everything(ip), gateways[i]),
			route(p.Node.ns.nl, outside, single, netip.Addr{}),
			neighbour(p.Node.ns.nl, outside, ip, inside.Attrs().HardwareAddr),
		); err != nil {
			return err
		}
	}
	return nil
}

// Serve starts the pod's echo server and returns when it listens.
func (p *Pod) Serve(ctx context.Context) error {
	argv := []string{"/proc/self/exe", echo.Command, "serve", p.Namespace + "/" + p.Name, p.Node.Name}
	server, err := p.ns.start(filepath.Join(p.Node.dir, p.Name+".log"), argv...)
	if err != nil {
		return err
	}
	p.server = server
	return server.until(ctx, "server of "+p.Name, func() error {
		if !strings.Contains(server.Output(), "is listening") {
			return fmt.Errorf("not listening: %s", server.Output())
		}
		return nil
	})
}

// Server is the pod's echo server; nil when it has none.
func (p *Pod) Server() *Process { return p.server }

// Run runs a command in the pod and returns its standard output.
func (p *Pod) Run(ctx context.Context, argv ...string) (string, error) {
	return p.ns.run(ctx, "", argv...)
}

// Call makes the calls of a spec from the pod and waits for their result.
func (p *Pod) Call(ctx context.Context, spec echo.Spec) (echo.Result, error) {
	result, _, err := p.CallCPU(ctx, spec)
	return result, err
}

// CallCPU is Call that also returns the processor time that the client used.
func (p *Pod) CallCPU(ctx context.Context, spec echo.Spec) (echo.Result, time.Duration, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return echo.Result{}, 0, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", echo.Command, "call", string(text))
	out, err := p.ns.finish(cmd)
	if err != nil {
		return echo.Result{}, 0, err
	}
	var got struct{ Result echo.Result }
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		return echo.Result{}, 0, fmt.Errorf("parse result %q: %w", out, err)
	}
	return got.Result, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// Remove ends the pod's processes, its namespace and its object.
func (p *Pod) Remove() error {
	lab := p.Node.lab
	lab.objects.removePod(p)
	for i, pod := range lab.pods {
		if pod == p {
			lab.pods = append(lab.pods[:i], lab.pods[i+1:]...)
			break
		}
	}
	return p.close()
}

func (p *Pod) close() error {
	var err error
	if p.server != nil {
		err = p.server.Kill()
	}
	return errors.Join(err, p.ns.close())
}
