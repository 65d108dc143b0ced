// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// TestPlainCluster proves the cluster itself, before anything of nodevoy's is
// in it: names resolve, and every pod reaches the backends of a Service on both
// nodes, over both families.
func TestPlainCluster(t *testing.T) {
	apply(t, "testdata/echo.yaml")
	kubectl(t, "-n", "demo", "rollout", "status", "deployment/echo", "daemonset/client", "--timeout=90s")
	nodes := strings.Fields(kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"))
	if len(nodes) != 2 {
		t.Fatalf("nodes: %v, want two", nodes)
	}
	clusterIPs := strings.Fields(kubectl(t, "-n", "demo", "get", "service", "echo",
		"-o", "jsonpath={.spec.clusterIPs[0]} {.spec.clusterIPs[1]}"))
	targets := []string{"echo:80", "echo.demo:80", "echo.demo.svc.cluster.local:80"}
	for _, ip := range clusterIPs {
		targets = append(targets, net.JoinHostPort(ip, "80"))
	}
	backends := backendNodes(t)
	clients := strings.Fields(kubectl(t, "-n", "demo", "get", "pods", "-l", "app=client",
		"-o", "jsonpath={.items[*].metadata.name}"))
	for _, client := range clients {
		for _, target := range targets {
			t.Run(client+" to "+target, func(t *testing.T) {
				// A Service answers a moment after its pods are ready.
				eventually(t, func() error { return reachesBothNodes(t, client, target, backends) })
			})
		}
	}
}

// backendNodes is the node of each echo pod, by namespace/name.
func backendNodes(t *testing.T) map[string]string {
	t.Helper()
	nodes := map[string]string{}
	list := kubectl(t, "-n", "demo", "get", "pods", "-l", "app=echo",
		"-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{"\n"}{end}`)
	for line := range strings.Lines(list) {
		name, node, _ := strings.Cut(strings.TrimSpace(line), " ")
		nodes["demo/"+name] = node
	}
	return nodes
}

// reachesBothNodes calls on 40 connections: the chance that kube-proxy picks
// the same one of two nodes for all is below one in a million.
func reachesBothNodes(t *testing.T, client, target string, backends map[string]string) error {
	result, err := call(t, "demo", client, echo.Spec{Protocol: echo.HTTP1, Target: target, Requests: 40, Fresh: true})
	if err != nil || result.Failed > 0 {
		return fmt.Errorf("call %s: %w: %v", target, err, result.Errors)
	}
	seen := map[string]bool{}
	for pod := range result.Pods {
		seen[backends[pod]] = true
	}
	if len(seen) != 2 || seen[""] {
		return fmt.Errorf("call %s: answered by %v, on nodes %v", target, result.Pods, seen)
	}
	return nil
}
