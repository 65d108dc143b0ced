// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// pod is where a pod is, and how calls are made from it.
type pod struct {
	name, node string
	// ips are its addresses, of both families.
	ips []string
	// call runs the lab's client in it, when followed by a spec; target is what
	// it calls.
	call   []string
	target string
}

// demo creates the user's side: namespace demo, not yet opted in.
func (c *cluster) demo(t *testing.T) {
	t.Helper()
	c.kubectl(t, "apply", "-f", "test/cluster/e2e/testdata/demo.yaml")
	c.demoReady(t)
}

func (c *cluster) demoReady(t *testing.T) {
	t.Helper()
	c.kubectl(t, "-n", "demo", "rollout", "status", "deployment/echo", "--timeout=120s")
	c.kubectl(t, "-n", "demo", "rollout", "status", "daemonset/client", "--timeout=120s")
	c.kubectl(t, "-n", "demo", "wait", "--for=condition=Ready", "pod/stranger", "--timeout=60s")
}

// pods are those of namespace demo that have a value of the label app.
func (c *cluster) pods(t *testing.T, app string) []pod {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name, DeletionTimestamp string }
			Spec     struct{ NodeName string }
			Status   struct{ PodIPs []struct{ IP string } }
		}
	}
	text := c.kubectl(t, "-n", "demo", "get", "pods", "-l", "app="+app, "-o", "json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("parse pods: %v", err)
	}
	var pods []pod
	for _, item := range list.Items {
		if item.Metadata.DeletionTimestamp != "" {
			continue
		}
		p := pod{name: item.Metadata.Name, node: item.Spec.NodeName, target: "echo:80"}
		p.call = []string{"kubectl", "exec", "-n", "demo", p.name, "--", "/echo", "call"}
		for _, ip := range item.Status.PodIPs {
			p.ips = append(p.ips, ip.IP)
		}
		pods = append(pods, p)
	}
	return pods
}

// client is the client pod of a node.
func (c *cluster) client(t *testing.T, node string) pod {
	t.Helper()
	for _, p := range c.pods(t, "client") {
		if p.node == node {
			return p
		}
	}
	t.Fatalf("%s has no client pod", node)
	return pod{}
}

// bare is the client pod of a node, but calls are made from its network only, by
// a process of the node's: neither kubelet nor API server nor DNS has a part in it.
func (c *cluster) bare(t *testing.T, node string) pod {
	t.Helper()
	return c.bared(t, c.client(t, node), "client")
}

// bared is the same for any pod; known are the first words of what it serves as.
func (c *cluster) bared(t *testing.T, p pod, known string) pod {
	t.Helper()
	p.call = append([]string{"test/cluster/enter.sh", p.node}, append(c.inside(t, p, known), c.program("echo"), "call")...)
	p.target = c.addresses(t)[0] + ":80"
	return p
}

// inside is what, on the pod's node, runs a command in the pod's network.
func (c *cluster) inside(t *testing.T, p pod, known string) []string {
	t.Helper()
	pids := c.processes(t, p.node, "^/echo serve demo/"+known+" ")
	if len(pids) != 1 {
		t.Fatalf("%s has the processes %v of %s, want one", p.node, pids, p.name)
	}
	return []string{"nsenter", "-t", pids[0], "-n", "--"}
}

// addresses are the Service's, of IPv4 and of IPv6, the latter in brackets.
func (c *cluster) addresses(t *testing.T) []string {
	t.Helper()
	ips := strings.Fields(c.kubectl(t, "-n", "demo", "get", "service", "echo", "-o", "jsonpath={.spec.clusterIPs[0]} {.spec.clusterIPs[1]}"))
	if len(ips) != 2 {
		t.Fatalf("the Service has the addresses %q, want two", ips)
	}
	return []string{ips[0], "[" + ips[1] + "]"}
}

// command is the program and arguments that make calls from a pod.
func (p pod) command(spec echo.Spec) (string, []string, error) {
	spec.Target = p.target
	text, err := json.Marshal(spec)
	if err != nil {
		return "", nil, fmt.Errorf("encode spec: %w", err)
	}
	return p.call[0], append(slices.Clone(p.call[1:]), string(text)), nil
}

// call makes calls from a pod of namespace demo.
func (c *cluster) call(from pod, spec echo.Spec) (echo.Result, error) {
	name, args, err := from.command(spec)
	if err != nil {
		return echo.Result{}, err
	}
	out, err := c.attempt(name, args...)
	if err != nil {
		return echo.Result{}, err
	}
	return parseResult(out)
}

func parseResult(out string) (echo.Result, error) {
	var printed struct{ Result *echo.Result }
	if err := json.Unmarshal([]byte(out), &printed); err != nil || printed.Result == nil {
		return echo.Result{}, fmt.Errorf("parse result %q: %w", out, err)
	}
	return *printed.Result, nil
}

// someCalls is a kept connection and its requests.
func someCalls() echo.Spec {
	return echo.Spec{Protocol: echo.HTTP1, Requests: 40}
}

// spread says what is wrong unless each request on one connection was sent to a
// pod of its own choice, on both nodes, by Envoy.
func (c *cluster) spread(t *testing.T, from pod) error {
	result, err := c.call(from, someCalls())
	if err != nil {
		return err
	}
	seen, backends := map[string]bool{}, c.pods(t, "echo")
	for _, b := range backends {
		if result.Pods["demo/"+b.name] > 0 {
			seen[b.node] = true
		}
	}
	if result.Failed > 0 || result.Connections != 1 || len(result.Pods) != len(backends) || len(seen) != len(nodes()) {
		return fmt.Errorf("%s: %d failed %v, %d connections, answered by %v, want one connection and all %d servers",
			from.name, result.Failed, result.Errors, result.Connections, result.Pods, len(backends))
	}
	return c.source(from, result)
}

// source says what is wrong unless redirected calls came from where they have to:
// in pod mode from the pod itself, in host mode from the node.
func (c *cluster) source(from pod, result echo.Result) error {
	for peer := range result.Peers {
		if slices.Contains(from.ips, peer) != (c.redirect == podMode) {
			return fmt.Errorf("%s, which has %v, called from %s", from.name, from.ips, peer)
		}
	}
	return nil
}

// direct says what is wrong unless one connection's requests reached one pod,
// which saw the caller's own address.
func (c *cluster) direct(from pod) error {
	result, err := c.call(from, someCalls())
	if err != nil {
		return err
	}
	if result.Failed > 0 || len(result.Pods) != 1 || ownPeer(from, result) == "" {
		return fmt.Errorf("%s: %d failed %v, answered by %v, called from %v, want one pod, called from %v",
			from.name, result.Failed, result.Errors, result.Pods, slices.Collect(maps.Keys(result.Peers)), from.ips)
	}
	return nil
}

// ownPeer is the caller's own address if the pods that answered saw it.
func ownPeer(from pod, result echo.Result) string {
	for _, ip := range from.ips {
		if result.Peers[ip] > 0 {
			return ip
		}
	}
	return ""
}

// label opts the namespace in, or with "-" no longer.
func (c *cluster) label(t *testing.T, value string) {
	t.Helper()
	label := "nodevoy.io/redirect=" + value
	if value == "-" {
		label = "nodevoy.io/redirect-"
	}
	c.kubectl(t, "label", "namespace", "demo", "--overwrite", label)
}

// logged says what is wrong unless the access log of a node's Envoy names, for
// calls of the node's client to a port of the Service, every pod.
func (c *cluster) logged(t *testing.T, node, port string, backends []pod) error {
	agent, client := c.agentOn(t, node), "-"
	if c.redirect == podMode {
		client = "demo/" + c.client(t, node).name
	}
	text, err := c.attempt("kubectl", "-n", release, "logs", agent, "-c", "envoy")
	if err != nil {
		return err
	}
	for _, b := range backends {
		named := false
		for line := range strings.Lines(text) {
			named = named || strings.Contains(line, " "+port+" ") && strings.Contains(line, " "+client+" demo/"+b.name+" \"")
		}
		if !named {
			return fmt.Errorf("the log of %s does not name %s and %s; its end: %s", agent, client, b.name, text[max(0, len(text)-500):])
		}
	}
	return nil
}
