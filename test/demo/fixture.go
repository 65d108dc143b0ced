// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
)

// The Service of the demo, and the number of its backends.
const (
	serviceIP = "10.96.0.10"
	backends  = 3
)

// fixture is the lab of the demo.
type fixture struct {
	*lab.Lab
	node             *lab.Node
	client, outsider *lab.Pod
	web              []*lab.Pod
}

// perform plays the whole demo and removes everything, unless it is to be kept
// and all went well.
func perform(ctx context.Context, keep bool) (err error) {
	if err := lab.Installed(); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s, err := build(limit)
	defer func() {
		if s.Lab != nil && (err != nil || !keep) {
			err = errors.Join(err, s.Close())
		}
	}()
	if err != nil {
		return cause(ctx, err)
	}
	return cause(ctx, s.play(limit, keep))
}

// cause is err, or that the user has interrupted, which explains any err.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// build makes the nodes, pods and objects.
func build(ctx context.Context) (fixture, error) {
	// kube-proxy needs br_netfilter where pods are on a bridge; without it pods
	// are joined by routes instead.
	options := lab.Options{Mode: lab.Mode(os.Getenv("MODE"))}
	if !lab.BridgeNetfilter() {
		options.Veth = lab.Routed
	}
	var s fixture
	var err error
	if s.Lab, err = lab.New(options); err != nil {
		return s, err
	}
	if s.node, err = s.AddNode("node-a"); err != nil {
		return s, err
	}
	other, err := s.AddNode("node-b")
	if err != nil {
		return s, err
	}
	s.Objects().SetNamespace("shop", map[string]string{"nodevoy.io/redirect": "enabled"})
	s.Objects().SetNamespace("other", nil)
	if s.client, err = s.node.AddPod("shop", "client", nil); err != nil {
		return s, err
	}
	if s.outsider, err = s.node.AddPod("other", "outsider", nil); err != nil {
		return s, err
	}
	for i, node := range []*lab.Node{s.node, other, other} {
		pod, err := node.AddPod("shop", fmt.Sprintf("web-%d", i+1), nil)
		if err != nil {
			return s, err
		}
		if err := pod.Serve(ctx); err != nil {
			return s, err
		}
		s.web = append(s.web, pod)
	}
	s.Objects().SetService(lab.Service{
		Namespace: "shop", Name: "web", Ports: lab.EchoPorts(), Pods: s.web,
		IPs: []netip.Addr{netip.MustParseAddr(serviceIP), netip.MustParseAddr("fd00:10:96::10")},
	})
	return s, s.Publish(ctx)
}

// play makes the calls before and after, and prints what came of them.
func (s *fixture) play(ctx context.Context, keep bool) error {
	fmt.Printf("\nnode-a: client (enrolled), outsider (not), web-1      node-b: web-2, web-3\n"+
		"Service shop/web is %s; kube-proxy's rules are in place on both nodes.\n\n", serviceIP)
	before, err := s.callAll(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	agent, err := s.node.StartAgent()
	if err != nil {
		return err
	}
	envoy, err := s.node.StartEnvoy(ctx)
	if err != nil {
		return err
	}
	if _, err := agent.WaitRedirected(ctx, s.client); err != nil {
		return err
	}
	ready := time.Since(start)
	after, err := s.callAll(ctx)
	if err != nil {
		return err
	}
	printTable(before, after)
	status, err := s.node.Status(ctx)
	if err != nil {
		return err
	}
	mode := lab.Mode(status.Redirect.Mode)
	fmt.Printf("\nEnvoy and the agent were started in between; %.1f s later the client was redirected, in %s mode:\n%s.\n",
		ready.Seconds(), mode, s.seen(mode))
	if err := s.printLog(ctx, envoy, mode); err != nil {
		return err
	}
	if err := s.printStatus(ctx); err != nil {
		return err
	}
	if err := s.check(mode, before, after); err != nil {
		return fmt.Errorf("this is not what nodevoy promises: %w\nthe agent's log:\n%s", err, agent.Output())
	}
	if keep {
		return nil
	}
	return s.remove(ctx, agent, envoy)
}

// seen says whose calls the backends take the client's for.
func (s *fixture) seen(mode lab.Mode) string {
	if mode == lab.Pods {
		return "Envoy listens inside the pod, and the backends see the calls come from the client's own address, " + s.client.IPs[0].String()
	}
	return "Envoy listens on the node, and the backends see the calls come from an address of the node"
}

// printLog prints a line of Envoy's access log for each backend and protocol.
func (s *fixture) printLog(ctx context.Context, envoy *lab.Envoy, mode lab.Mode) error {
	var lines []string
	err := lab.Until(ctx, "the access log", func() error {
		lines = lines[:0]
		for _, pod := range s.web {
			log := envoy.AccessLog()
			i := slices.IndexFunc(log, func(line string) bool {
				return strings.Contains(line, "shop/"+pod.Name) && !slices.ContainsFunc(lines, func(shown string) bool {
					return protocolOf(shown) == protocolOf(line)
				})
			})
			if i < 0 {
				return fmt.Errorf("no line names %s", pod.Name)
			}
			lines = append(lines, log[i])
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, strings.Join(envoy.AccessLog(), "\n"))
	}
	caller := ""
	if mode == lab.Pods {
		caller = ", and the one that called"
	}
	fmt.Printf("\nEnvoy's access log names the pod that answered%s:\n  %s\n", caller, strings.Join(lines, "\n  "))
	return nil
}

// protocolOf is the request line of a line of the access log, between quotes.
func protocolOf(line string) string {
	parts := strings.SplitN(line, `"`, 3)
	if len(parts) < 3 {
		return ""
	}
	return parts[1]
}

// printStatus prints what the agent says about itself.
func (s *fixture) printStatus(ctx context.Context) error {
	status, err := s.node.StatusText(ctx)
	if err != nil {
		return err
	}
	fmt.Println("\n$ nodevoy status")
	for line := range strings.Lines(strings.TrimSpace(status)) {
		fmt.Print("  ", line)
	}
	fmt.Println()
	return nil
}

// remove takes nodevoy off the node and makes sure that nothing is left.
func (s *fixture) remove(ctx context.Context, agent *lab.Agent, envoy *lab.Envoy) error {
	if err := errors.Join(agent.Stop(5*time.Second), envoy.Stop(5*time.Second)); err != nil {
		return err
	}
	if err := s.node.Cleanup(ctx); err != nil {
		return err
	}
	fmt.Println("\nAll is removed: no process, rule or set of it is left.")
	return nil
}
