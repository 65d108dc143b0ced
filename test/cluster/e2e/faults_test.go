// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// reboot pulls a node's plug and starts it again; its pods are the same ones
// after it.
func (c *cluster) reboot(t *testing.T) {
	before := c.kubectl(t, "-n", "demo", "get", "pods", "-o", "jsonpath={.items[*].metadata.uid}")
	began := time.Now()
	c.run(t, "test/cluster/reboot.sh", nodeB)
	c.restarted(t)
	from := c.client(t, nodeB)
	eventually(t, 2*time.Minute, func() error { return c.spread(t, from) })
	t.Logf("node up, pods running and redirected again after %.1f s", time.Since(began).Seconds())
	if after := c.kubectl(t, "-n", "demo", "get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"); after != before {
		t.Errorf("the node's pods were replaced: before %s, after %s", before, after)
	}
	c.settled(t)
	c.everyNode(t)
}

// restarted waits until every container of the rebooted node was started again
// and is ready: until then the API server has the state from before.
func (c *cluster) restarted(t *testing.T) {
	t.Helper()
	eventually(t, 3*time.Minute, func() error {
		for _, app := range []string{"client", "echo"} {
			for _, p := range c.pods(t, app) {
				if p.node != nodeB {
					continue
				}
				state := c.kubectl(t, "-n", "demo", "get", "pod", p.name,
					"-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
				if state != "1 true" {
					return fmt.Errorf("%s: restarts and readiness %q", p.name, state)
				}
			}
		}
		return nil
	})
}

// switchTimeout is the switch, the timeout of the set of pod addresses, of the last test.
const switchTimeout = 6 * time.Second

// agentsKilled leaves the nodes to the switch in the kernel: the agents are
// killed, and nothing that could start them again or clean up runs.
func (c *cluster) agentsKilled(t *testing.T) {
	c.upgrade(t, "--set", "redirect.timeout="+switchTimeout.String())
	c.everyNode(t)
	from := c.bare(t, nodeA)
	c.under(t, "agents killed, until their switch has fallen", func() {
		for _, node := range nodes() {
			c.signal(t, node, "STOP", kubeletProcess)
			c.signal(t, node, "KILL", agentProcess)
		}
		killed := time.Now()
		if err := c.spread(t, from); err != nil {
			t.Errorf("Envoy does not go on without the agent: %v", err)
		}
		eventually(t, time.Minute, func() error { return c.direct(from) })
		took := time.Since(killed)
		t.Logf("calls took kube-proxy's way %.1f s after the agents were killed", took.Seconds())
		// The machine may be busy.
		if took > switchTimeout+5*time.Second {
			t.Errorf("%s is longer than the switch's %s", took, switchTimeout)
		}
	})
	t.Run("the next agent cleans", c.cleanedByTheNext)
}

// cleanedByTheNext goes on from there: Envoy and the release are removed while
// nobody can clean, and what is left harms no call and goes with the next one.
func (c *cluster) cleanedByTheNext(t *testing.T) {
	for _, node := range nodes() {
		c.signal(t, node, "KILL", envoyProcess)
	}
	c.run(t, "helm", "uninstall", release, "--namespace", release, "--no-hooks")
	for _, node := range nodes() {
		if len(c.leftIn(t, node, c.redirect)) == 0 {
			t.Errorf("%s is clean, so that this proves nothing", node)
		}
		if err := c.direct(c.bare(t, node)); err != nil {
			t.Error(err)
		}
		c.signal(t, node, "CONT", kubeletProcess)
	}
	eventually(t, 2*time.Minute, func() error {
		if left := c.agents(t); len(left) > 0 {
			return fmt.Errorf("pods %q are still there", left)
		}
		return nil
	})
	c.install(t)
	c.everyNode(t)
	c.uninstall(t)
	for _, node := range nodes() {
		for _, mode := range []string{hostMode, podMode} {
			if left := c.leftIn(t, node, mode); len(left) > 0 {
				t.Errorf("%s still has %q", node, left)
			}
		}
	}
}

// leftIn are the lines of a node's footprint that name nodevoy or its addresses,
// where a mode has its rules: in the node's own network, or in its pods'.
func (c *cluster) leftIn(t *testing.T, node, mode string) []string {
	t.Helper()
	var left []string
	for about, listing := range c.footprint(t) {
		for line := range strings.Lines(listing) {
			if strings.HasPrefix(about, node) && strings.HasSuffix(about, inPods) == (mode == podMode) && ours(line) {
				left = append(left, strings.TrimSpace(line))
			}
		}
	}
	return left
}

func ours(line string) bool {
	for _, mark := range []string{"nodevoy-", "NODEVOY-", "169.254.64.15", "fd6e:6f64:6576:6f79::15", "1064"} {
		// kube-proxy names the Services of helm test, not yet forgotten.
		if strings.Contains(line, mark) && !strings.Contains(line, "KUBE-") {
			return true
		}
	}
	return false
}
