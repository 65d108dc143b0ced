// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/advise"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// nodevoy is what a command in the agent's container of a node prints, read as JSON.
func (c *cluster) nodevoy(t *testing.T, node string, into any, command ...string) error {
	t.Helper()
	out, err := c.attempt("kubectl", append([]string{"-n", release, "exec", c.agentOn(t, node), "-c", "agent", "--", "nodevoy"}, command...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("parse what nodevoy %q prints: %w", command, err)
	}
	return nil
}

// untouched looks, while nothing is enrolled, at what the kernel knows: a call by cluster
// IP is told with its Service and the pod that answered, and of three callers the one is
// named that is stuck to one pod.
func (c *cluster) untouched(t *testing.T) {
	stranger := c.pods(t, "stranger")[0]
	node := stranger.node
	from := c.bare(t, node)
	for _, address := range c.addresses(t) {
		from.target = address + ":80"
		began := time.Now()
		result, err := c.call(from, echo.Spec{Protocol: echo.HTTP1, Requests: 1, Fresh: true})
		if err != nil || result.Failed > 0 {
			t.Fatalf("call %s: %+v, %v", from.target, result, err)
		}
		// A second, and the time that kubectl takes.
		eventually(t, 3*time.Second, func() error { return c.told(t, from, result, began) })
	}
	var callers load
	for _, caller := range []struct {
		from        pod
		connections int
		fresh       bool
	}{{c.bare(t, node), 1, false}, {c.bared(t, stranger, "stranger"), 12, false}, {c.serverOn(t, node), 1, true}} {
		callers.clients = append(callers.clients, c.startClient(t, caller.from, echo.Spec{
			Protocol: echo.HTTP1, Rate: 40, Connections: caller.connections, Fresh: caller.fresh, Attached: true,
		}))
	}
	eventually(t, 20*time.Second, func() error {
		var a advise.Advice
		if err := c.nodevoy(t, node, &a, "advise", "-o", "json", "--long", "2s"); err != nil {
			return err
		}
		stuck := slices.DeleteFunc(a.Stuck, func(s advise.Stuck) bool { return s.Service.Namespace != "demo" })
		if len(stuck) != 1 || stuck[0].Caller.Pod != from.name || stuck[0].Service.Name != "echo" || stuck[0].Backends != 4 {
			return fmt.Errorf("stuck are %+v, want %s to one of 4 pods of echo", a.Stuck, from.name)
		}
		return nil
	})
	callers.stop(t, "nothing enrolled")
}

// told says what is wrong unless the call of a pod is among the kernel's flows of its node.
func (c *cluster) told(t *testing.T, from pod, result echo.Result, began time.Time) error {
	t.Helper()
	var all view.Flows
	if err := c.nodevoy(t, from.node, &all, "get", "/v1/flows?origin=kernel&last=1000&from=demo/"+from.name); err != nil {
		return err
	}
	for _, f := range all.Items {
		if f.Service.String() == "demo/echo/http" && f.Open && f.Time.After(began) && result.Pods[f.Backend.Name()] == 1 && f.Backend.Node != "" {
			return nil
		}
	}
	return fmt.Errorf("no flow of a call that %v answered, among %d", result.Pods, len(all.Items))
}

// serverOn is one of the servers, on a node, as a caller.
func (c *cluster) serverOn(t *testing.T, node string) pod {
	t.Helper()
	for _, p := range c.pods(t, "echo") {
		if p.node == node {
			return c.bared(t, p, p.name)
		}
	}
	t.Fatalf("%s has no server", node)
	return pod{}
}
