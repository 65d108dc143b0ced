// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// The cluster IPs of the victim's Service and of the attackers'.
const (
	victimIP = "10.96.0.10"
	ownIP    = "10.96.0.66"
	manyIP   = "10.96.0.67"
)

// enrolled are the labels of namespaces whose pods are redirected.
func enrolled() map[string]string { return map[string]string{"nodevoy.io/redirect": "enabled"} }

// node is a lab with a node under attack: its agent and its Envoy, a victim and
// attackers, and a pod that isn't enrolled and does what the victim does. Their
// backends are on another node.
type node struct {
	*lab.Lab
	config   config
	mode     lab.Mode
	group    group
	node     *lab.Node
	victim   *lab.Pod
	control  *lab.Pod
	target   *lab.Pod
	evil     []*lab.Pod
	made     int
	agent    *lab.Agent
	envoy    *lab.Envoy
	software string
}

// newNode makes the lab with this many attackers, without agent and Envoy.
func newNode(ctx context.Context, cfg config, mode lab.Mode, attackers int) (n *node, err error) {
	n = &node{config: cfg, mode: mode}
	if n.software, err = os.Executable(); err != nil {
		return n, err
	}
	options := lab.Options{Mode: mode}
	if !lab.BridgeNetfilter() {
		options.Veth = lab.Routed
	}
	if n.Lab, err = lab.New(options); err != nil {
		return n, err
	}
	if n.node, err = n.AddNode("node-a"); err != nil {
		return n, err
	}
	n.Objects().SetNamespace("shop", enrolled())
	n.Objects().SetNamespace("evil", enrolled())
	n.Objects().SetNamespace("plain", nil)
	for range attackers {
		if err := n.addAttacker(); err != nil {
			return n, err
		}
	}
	return n, n.populate(ctx)
}

func (n *node) addAttacker() error {
	n.made++
	pod, err := n.node.AddPod("evil", fmt.Sprintf("evil-%d", n.made), nil)
	n.evil = append(n.evil, pod)
	return err
}

// populate adds the pods that stay and the Services.
func (n *node) populate(ctx context.Context) error {
	other, err := n.AddNode("node-b")
	if err != nil {
		return err
	}
	var backend *lab.Pod
	for _, p := range []struct {
		to              **lab.Pod
		node            *lab.Node
		namespace, name string
	}{
		{&n.victim, n.node, "shop", "victim"},
		{&n.control, n.node, "plain", "control"},
		{&backend, other, "shop", "backend"},
		{&n.target, other, "evil", "target"},
	} {
		if *p.to, err = p.node.AddPod(p.namespace, p.name, nil); err != nil {
			return err
		}
	}
	if err := errors.Join(backend.Serve(ctx), n.target.Serve(ctx)); err != nil {
		return err
	}
	n.Objects().SetService(lab.Service{
		Namespace: "shop", Name: "web", IPs: ips(victimIP), Ports: lab.EchoPorts(), Pods: []*lab.Pod{backend},
	})
	n.Objects().SetService(lab.Service{
		Namespace: "evil", Name: "own", IPs: ips(ownIP), Ports: targetPorts(), Pods: []*lab.Pod{n.target},
	})
	return n.Publish(ctx)
}

// setManyPorts adds the Service of many ports.
func (n *node) setManyPorts() {
	var ports []corev1.ServicePort
	for i := range manyPorts {
		ports = append(ports, corev1.ServicePort{
			Name: fmt.Sprintf("http-%d", i), Port: int32(firstPort + i),
			TargetPort: intstr.FromInt(echo.HTTPPort), Protocol: corev1.ProtocolTCP,
		})
	}
	n.Objects().SetService(lab.Service{Namespace: "evil", Name: "many", IPs: ips(manyIP), Ports: ports, Pods: []*lab.Pod{n.target}})
}

func ips(text string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(text)} }

// start starts Envoy, as the chart does, an agent and the attackers' servers, and waits
// until victim and attackers are redirected. Envoy goes before others' processes: the
// chart gives it a worker for each CPU that it requests, and kubelet the time of those
// CPUs before that of pods which request less.
func (n *node) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	servers, err := n.target.Start("target.log", n.software, targetCommand)
	if err != nil {
		return err
	}
	if n.group, err = newGroup(n.config.limit); err != nil {
		return err
	}
	n.envoy, err = n.node.StartEnvoyWith(ctx, lab.EnvoyOptions{
		By:        append(n.group.by(), "nice", "-n", "-10"),
		Flags:     []string{"--concurrency", fmt.Sprint(n.config.workers), "--drain-time-s", "60", "--component-log-level", "misc:error"},
		Bootstrap: []string{fmt.Sprintf("--envoy-max-heap=%d", n.config.heap())},
		Piped:     true,
	})
	if err != nil {
		return err
	}
	if n.agent, err = n.node.StartAgent(fmt.Sprintf("--max-connections-per-pod=%d", n.config.connections)); err != nil {
		return err
	}
	for _, pod := range append([]*lab.Pod{n.victim}, n.evil...) {
		if _, err := n.agent.WaitRedirected(ctx, pod); err != nil {
			return err
		}
	}
	return lab.Until(ctx, "the attackers' servers", func() error {
		if !strings.Contains(servers.Output(), "listening") {
			return errors.New(servers.Output())
		}
		return nil
	})
}

// assault is an attack under way.
type assault struct {
	processes []*lab.Process
	pods      []*lab.Pod
}

// launch has pods attack. They give way to others' processes: the machine stands for
// several pods that have processors of their own.
func (n *node) launch(a attack, length time.Duration, by []*lab.Pod) (*assault, error) {
	o := order{Attack: a.Name, Service: netip.MustParseAddr(ownIP), Port: a.port, For: length}
	if a.manyPorts {
		o.Service = netip.MustParseAddr(manyIP)
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	out := &assault{pods: by}
	for _, pod := range by {
		for i := range max(a.processes, 1) {
			p, err := pod.Start(fmt.Sprintf("%s-%d-%d.log", pod.Name, i, time.Now().UnixNano()), "nice", "-n", "10", n.software, attackerCommand, string(text))
			if err != nil {
				return nil, err
			}
			out.processes = append(out.processes, p)
		}
	}
	return out, nil
}

// end waits until all attackers have ended and adds up what they have sent.
func (a *assault) end(ctx context.Context) (total sent, err error) {
	for _, p := range a.processes {
		select {
		case <-p.Ended():
		case <-ctx.Done():
			return total, errors.Join(ctx.Err(), p.Kill())
		}
		var one sent
		if err := json.Unmarshal([]byte(p.Output()), &one); err != nil {
			return total, fmt.Errorf("an attacker failed: %s", p.Output())
		}
		total.add(one)
	}
	return total, nil
}

// vanish cuts the attackers off and kills them, without a word to anybody.
func (n *node) vanish(a *assault) error {
	var errs []error
	for _, pod := range a.pods {
		errs = append(errs, pod.Unplug())
	}
	for _, p := range a.processes {
		errs = append(errs, p.Kill())
	}
	for _, pod := range a.pods {
		errs = append(errs, pod.Remove())
	}
	n.evil = nil
	return errors.Join(append(errs, n.PublishObjects())...)
}
