// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
)

// serviceIP is the cluster IP that everything is measured against.
const serviceIP = "10.96.0.10"

// path is one of the ways that requests take.
type path struct {
	// mode is that of redirection; empty for kube-proxy's way.
	mode lab.Mode
	from *lab.Pod
	// envoy is nil for kube-proxy's way.
	envoy *lab.Envoy
}

// bed is the laboratory: a node in host mode, with an enrolled client and one
// that isn't, a node in pod mode with an enrolled client, and a node with the
// two backends, as far from each client.
type bed struct {
	*lab.Lab
	direct, host, pod path
	web               []*lab.Pod
}

// build makes the laboratory and waits until the enrolled pods are redirected.
func build(ctx context.Context) (b bed, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
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
	return b, errors.Join(b.host.start(ctx, b.Lab), b.pod.start(ctx, b.Lab))
}

// populate adds the pods and the Service.
func (b *bed) populate(ctx context.Context, nodes []*lab.Node) (err error) {
	b.host.mode, b.pod.mode = lab.Host, lab.Pods
	if b.direct.from, err = nodes[0].AddPod("off", "direct", nil); err != nil {
		return err
	}
	if b.host.from, err = nodes[0].AddPod("on", "host-mode", nil); err != nil {
		return err
	}
	if b.pod.from, err = nodes[1].AddPod("on", "pod-mode", nil); err != nil {
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
		Namespace: "off", Name: "web", IPs: []netip.Addr{netip.MustParseAddr(serviceIP)}, Ports: lab.EchoPorts(), Pods: b.web,
	})
	return b.Publish(ctx)
}

// start starts Envoy and an agent in the path's mode on the client's node.
func (p *path) start(ctx context.Context, l *lab.Lab) (err error) {
	l.SetMode(p.mode)
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
