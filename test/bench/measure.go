// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// serviceIP is the cluster IP that everything is measured against.
const serviceIP = "10.96.0.10"

// answerSize is the padding of an answer, in bytes.
const answerSize = 1024

// bed is the laboratory: an enrolled client and one that isn't, on one node,
// with a backend on the same node and one on another.
type bed struct {
	*lab.Lab
	node             *lab.Node
	enrolled, direct *lab.Pod
	web              []*lab.Pod
	envoy            *lab.Envoy
	agent            *lab.Agent
}

// sample is one measurement.
type sample struct {
	result                 echo.Result
	client, servers, envoy time.Duration
}

// measure builds the laboratory, makes all measurements and removes it.
func measure(ctx context.Context, cfg config) (rows []*row, err error) {
	if err := lab.Installed(); err != nil {
		return nil, err
	}
	b, err := build(ctx)
	if b.Lab != nil {
		defer func() { err = errors.Join(err, b.Close()) }()
	}
	if err != nil {
		return nil, err
	}
	rows = allRows()
	for round := range cfg.rounds {
		for _, r := range rows {
			// Taking turns, both paths meet the same disturbances.
			for _, path := range []*side{&r.Direct, &r.Nodevoy} {
				from := b.direct
				if path == &r.Nodevoy {
					from = b.enrolled
				}
				s, err := b.sample(ctx, from, r.spec(cfg))
				if err != nil {
					return nil, fmt.Errorf("%s: %w", r.Name, err)
				}
				path.samples = append(path.samples, s)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d done\n", round+1, cfg.rounds)
	}
	for _, r := range rows {
		r.sum()
	}
	return rows, nil
}

// build makes the laboratory and waits until the enrolled pod is redirected.
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
	if b.node, err = b.AddNode("node-a"); err != nil {
		return b, err
	}
	other, err := b.AddNode("node-b")
	if err != nil {
		return b, err
	}
	b.Objects().SetNamespace("on", map[string]string{"nodevoy.io/redirect": "enabled"})
	b.Objects().SetNamespace("off", nil)
	if b.enrolled, err = b.node.AddPod("on", "enrolled", nil); err != nil {
		return b, err
	}
	if b.direct, err = b.node.AddPod("off", "direct", nil); err != nil {
		return b, err
	}
	for i, node := range []*lab.Node{b.node, other} {
		pod, err := node.AddPod("off", fmt.Sprintf("web-%d", i+1), nil)
		if err != nil {
			return b, err
		}
		if err := pod.Serve(ctx); err != nil {
			return b, err
		}
		b.web = append(b.web, pod)
	}
	b.Objects().SetService(lab.Service{
		Namespace: "off", Name: "web", IPs: []netip.Addr{netip.MustParseAddr(serviceIP)}, Ports: lab.EchoPorts(), Pods: b.web,
	})
	if err := b.Publish(ctx); err != nil {
		return b, err
	}
	if b.envoy, err = b.node.StartEnvoy(ctx); err != nil {
		return b, err
	}
	if b.agent, err = b.node.StartAgent(); err != nil {
		return b, err
	}
	_, err = b.agent.WaitRedirected(ctx, b.enrolled)
	return b, err
}

// sample runs a spec once, after a short warm-up, and takes the processor time
// of everyone involved. A failed request, or one on the wrong path, is an error.
func (b *bed) sample(ctx context.Context, from *lab.Pod, spec echo.Spec) (sample, error) {
	warm := spec
	warm.Duration = 200 * time.Millisecond
	if _, err := from.Call(ctx, warm); err != nil {
		return sample{}, err
	}
	var s sample
	serversBefore, envoyBefore, err := b.cpu()
	if err != nil {
		return s, err
	}
	if s.result, s.client, err = from.CallCPU(ctx, spec); err != nil {
		return s, err
	}
	if s.servers, s.envoy, err = b.cpu(); err != nil {
		return s, err
	}
	s.servers -= serversBefore
	s.envoy -= envoyBefore
	if from == b.direct {
		// What Envoy does meanwhile, it does not do for these requests.
		s.envoy = 0
	}
	if s.result.Failed > 0 {
		return s, fmt.Errorf("%d of %d requests failed: %v", s.result.Failed, s.result.Requests, s.result.Errors)
	}
	own := s.result.Peers[from.IPs[0].String()]
	if want := map[bool]int{true: s.result.Requests, false: 0}[from == b.direct]; own != want {
		return s, fmt.Errorf("%d of %d requests went by kube-proxy's path, want %d", own, s.result.Requests, want)
	}
	return s, nil
}

// cpu is the processor time used so far by the servers, and by Envoy.
func (b *bed) cpu() (servers, envoy time.Duration, err error) {
	for _, pod := range b.web {
		used, err := pod.Server().CPU()
		if err != nil {
			return 0, 0, err
		}
		servers += used
	}
	envoy, err = b.envoy.CPU()
	return servers, envoy, err
}
