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
	// UID is the pod's own, whatever its name.
	UID string
	// IPs are its addresses, v4 then v6.
	IPs []netip.Addr
	// Node is where it runs.
	Node *Node

	spec   PodSpec
	number int
	serial int
	ns     *namespace
	plug   netlink.Link // the node's end of eth0
	cut    bool         // unplugged
	server *Process
}

// PodSpec is a pod to be.
type PodSpec struct {
	// Namespace and Name are the pod's; names are unique in the lab.
	Namespace, Name     string
	Labels, Annotations map[string]string
	// Containers are the names of its containers; none means one, echo.
	Containers []string
	// Ports are TCP ports that its first container declares.
	Ports []int32
	// IPv4Only leaves the pod without an IPv6 address; see GainIPv6.
	IPv4Only bool
	// NoIPv6 also turns IPv6 off in the pod's kernel.
	NoIPv6 bool
	// OwnUser gives the pod a user namespace, as hostUsers: false does.
	OwnUser bool
}

// AddPod adds a pod to the node and to the objects, with these labels.
func (n *Node) AddPod(namespace, name string, labels map[string]string) (*Pod, error) {
	return n.Add(PodSpec{Namespace: namespace, Name: name, Labels: labels})
}

// Add adds a pod to the node and to the objects. Its addresses are the lowest
// that are free: those of a pod that was removed are used again at once.
func (n *Node) Add(spec PodSpec) (*Pod, error) {
	spec.IPv4Only = spec.IPv4Only || spec.NoIPv6
	n.lab.made++
	p := &Pod{Namespace: spec.Namespace, Name: spec.Name, Node: n, spec: spec, serial: n.lab.made}
	p.UID = fmt.Sprintf("uid-pod-%s-%d", p.Name, p.serial)
	// 1 is the gateway's.
	p.number = 2
	for n.numbers[p.number] {
		p.number++
	}
	if p.number > 254 {
		return nil, fmt.Errorf("%s has no address for pod %s", n.Name, p.Name)
	}
	mount := unshared
	if spec.OwnUser {
		mount = unsharedWithUser
	}
	var err error
	if p.ns, err = newNamespace(p.Name, filepath.Join(n.NetnsDir(), fmt.Sprintf("cni-%s-%d", p.Name, p.serial)), mount); err != nil {
		return nil, err
	}
	n.numbers[p.number] = true
	n.lab.pods = append(n.lab.pods, p)
	if spec.NoIPv6 {
		if err := p.ns.sysctl("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"); err != nil {
			return nil, err
		}
	}
	if err := p.join(); err != nil {
		return nil, fmt.Errorf("join pod %s to %s: %w", p.Name, n.Name, err)
	}
	n.lab.objects.addPod(p)
	return p, nil
}

// prefixes are the addresses that the pod has, or is to have.
func (p *Pod) prefixes() []netip.Prefix {
	all := p.Node.podPrefixes(p.number)
	if p.spec.IPv4Only {
		return all[:1]
	}
	return all
}

// Serve starts the pod's echo server and returns when it listens.
func (p *Pod) Serve(ctx context.Context) error {
	argv := []string{"/proc/self/exe", echo.Command, "serve", p.Namespace + "/" + p.Name, p.Node.Name}
	server, err := p.ns.start(filepath.Join(p.Node.dir, fmt.Sprintf("%s-%d.log", p.Name, p.serial)), argv...)
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

// NetnsPath is where the pod's network namespace is mounted.
func (p *Pod) NetnsPath() string { return p.ns.path }

// Run runs a command in the pod's network namespace and returns its standard
// output.
func (p *Pod) Run(ctx context.Context, argv ...string) (string, error) {
	return p.ns.run(ctx, "", argv...)
}

// Start starts a program in the pod, with its output in a file of this name. It is
// ended with the lab.
func (p *Pod) Start(output string, argv ...string) (*Process, error) {
	started, err := p.ns.start(filepath.Join(p.Node.dir, output), argv...)
	if err == nil {
		*p.Node.procs = append(*p.Node.procs, started)
	}
	return started, err
}

// Call makes the calls of a spec from the pod, by OwnPorts, and waits for their
// result.
func (p *Pod) Call(ctx context.Context, spec echo.Spec) (echo.Result, error) {
	result, _, err := p.CallCPU(ctx, spec)
	return result, err
}

// CallCPU is Call that also returns the processor time that the client used.
func (p *Pod) CallCPU(ctx context.Context, spec echo.Spec) (echo.Result, time.Duration, error) {
	spec.OwnPorts = true
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

// CallHere makes the calls of a spec from the pod, by OwnPorts, until they are
// done or ctx ends. They are made by this program itself: so there can be very
// many. The pod is to be there until CallHere returns; its network need not be.
func (p *Pod) CallHere(ctx context.Context, spec echo.Spec) (echo.Result, error) {
	spec.OwnPorts, spec.In = true, p.ns.do
	return echo.Run(ctx, spec)
}

// Remove ends the pod's server, takes its network away at once, and its object.
// Its namespace goes as soon as nobody holds it any more: see Lab.Lingering.
func (p *Pod) Remove() error {
	lab := p.Node.lab
	lab.objects.RemovePod(p)
	for i, pod := range lab.pods {
		if pod == p {
			lab.pods = append(lab.pods[:i], lab.pods[i+1:]...)
			break
		}
	}
	var err error
	if p.server != nil {
		err = p.server.Kill()
	}
	err = errors.Join(err, p.Unplug(), p.ns.close())
	delete(p.Node.numbers, p.number)
	return err
}

func (p *Pod) close() error {
	var err error
	if p.server != nil {
		err = p.server.Kill()
	}
	return errors.Join(err, p.ns.close())
}
