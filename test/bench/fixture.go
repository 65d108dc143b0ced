// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
)

// serviceIP is the cluster IP that everything is measured against.
const serviceIP = "10.96.0.10"

// path is one of the ways that requests take.
type path struct {
	name string
	from *lab.Pod
	// envoy is nil for kube-proxy's DNAT, where there is none.
	envoy *lab.Envoy
	// ownAddress is set if backends see the client's own address.
	ownAddress bool
}

// fixture is the lab: a node in host mode, with an enrolled client and one
// that isn't, a node in pod mode, with an enrolled client and one that has a
// sidecar, and a node with the two backends, as far from each client.
type fixture struct {
	*lab.Lab
	direct, host, pod, sidecar path
	web                        []*lab.Pod
}

// paths are in the order of a row's sides.
func (b *fixture) paths() []*path { return []*path{&b.direct, &b.host, &b.pod, &b.sidecar} }

// build makes the lab and waits until the enrolled pods are redirected.
func build(ctx context.Context) (b fixture, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	options := lab.Options{}
	if !lab.BridgeNetfilter() {
		options.Veth = lab.Routed
	}
	if b.Lab, err = lab.New(options); err != nil {
		return b, err
	}
	var nodes []*lab.Node
	for _, name := range []string{"node-host", "node-pod", "node-web"} {
		node, err := b.AddNode(name)
		if err != nil {
			return b, err
		}
		nodes = append(nodes, node)
	}
	b.Objects().SetNamespace("on", map[string]string{"nodevoy.io/redirect": "enabled"})
	b.Objects().SetNamespace("off", nil)
	if err := b.populate(ctx, nodes); err != nil {
		return b, err
	}
	if err := b.host.start(ctx, b.Lab, lab.Host); err != nil {
		return b, err
	}
	if err := b.pod.start(ctx, b.Lab, lab.Pods); err != nil {
		return b, err
	}
	return b, b.sidecar.startSidecar(ctx, b.pod.envoy, b.web)
}

// populate adds the pods and the Service.
func (b *fixture) populate(ctx context.Context, nodes []*lab.Node) (err error) {
	b.direct = path{name: "direct", ownAddress: true}
	b.host = path{name: "host"}
	b.pod = path{name: "pod", ownAddress: true}
	b.sidecar = path{name: "sidecar", ownAddress: true}
	if b.direct.from, err = nodes[0].AddPod("off", "direct", nil); err != nil {
		return err
	}
	if b.host.from, err = nodes[0].AddPod("on", "host-mode", nil); err != nil {
		return err
	}
	if b.pod.from, err = nodes[1].AddPod("on", "pod-mode", nil); err != nil {
		return err
	}
	if b.sidecar.from, err = nodes[1].AddPod("off", "sidecar", nil); err != nil {
		return err
	}
	for i := range 2 {
		pod, err := nodes[2].AddPod("off", fmt.Sprintf("web-%d", i+1), nil)
		if err != nil {
			return err
		}
		if err := pod.Serve(ctx); err != nil {
			return err
		}
		b.web = append(b.web, pod)
	}
	b.Objects().SetService(lab.Service{
		Namespace: "off", Name: "web", IPs: []netip.Addr{netip.MustParseAddr(serviceIP)}, Ports: append(lab.EchoPorts(), bulkServicePorts()...), Pods: b.web,
	})
	return b.Publish(ctx)
}

// start starts Envoy and an agent in this mode on the client's node.
func (p *path) start(ctx context.Context, l *lab.Lab, mode lab.Mode) (err error) {
	l.SetMode(mode)
	if p.envoy, err = p.from.Node.StartEnvoy(ctx); err != nil {
		return err
	}
	agent, err := p.from.Node.StartAgent()
	if err != nil {
		return err
	}
	_, err = agent.WaitRedirected(ctx, p.from)
	return err
}
