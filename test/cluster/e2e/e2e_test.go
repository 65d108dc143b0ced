// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestIptables and TestNftables are everything in host mode, which depends on
// kube-proxy's mode.
func TestIptables(t *testing.T) { everything(t, &cluster{mode: "iptables", redirect: hostMode}) }

func TestNftables(t *testing.T) { everything(t, &cluster{mode: "nftables", redirect: hostMode}) }

// TestPods is everything in pod mode, which these nodes get by the chart's default,
// and what only pod mode can do.
func TestPods(t *testing.T) { everything(t, &cluster{mode: "iptables", redirect: podMode}) }

// everything is parts that follow one another on one cluster.
func everything(t *testing.T, c *cluster) {
	c.rate = wantedRate
	c.start(t)
	c.demo(t)
	t.Run("kubectl nodevoy, before", c.pluginBefore)
	t.Run("install and uninstall", c.installAndUninstall)
	c.install(t)
	c.label(t, "enabled")
	c.everyNode(t)
	t.Run("helm test", c.helmTestPasses)
	t.Run("kubectl nodevoy", c.pluginAfter)
	t.Run("permissions", c.permissions)
	t.Run("nothing lost", c.nothingLost)
	t.Run("hung", c.hung)
	t.Run("helm test of a broken Envoy", c.helmTestFails)
	if c.redirect == podMode {
		t.Run("prometheus", c.scraped)
		t.Run("mode changed", c.modeChanged)
		t.Run("filter by source", c.filtered)
		t.Run("without kube-proxy", c.withoutKubeProxy)
	}
	t.Run("reboot", c.reboot)
	t.Run("agents killed", c.agentsKilled)
}

// installAndUninstall goes the way of a user who tries nodevoy and gives it up.
func (c *cluster) installAndUninstall(t *testing.T) {
	before := c.before(t)
	c.install(t)
	c.chosen(t)
	from, stranger := c.client(t, nodeA), c.pods(t, "stranger")[0]
	if err := c.direct(from); err != nil {
		t.Errorf("redirected without being asked: %v", err)
	}
	c.untouched(t)
	c.label(t, "enabled")
	c.everyNode(t)
	for _, node := range nodes() {
		// Envoy writes its log some seconds late.
		eventually(t, 20*time.Second, func() error { return c.logged(t, node, "demo/echo/http", c.pods(t, "echo")) })
	}
	c.onlyInItsPlace(t)
	if err := c.direct(stranger); err != nil {
		t.Errorf("the pod that is opted out: %v", err)
	}
	c.label(t, "-")
	unlabelled := time.Now()
	eventually(t, 20*time.Second, func() error { return c.direct(from) })
	took := time.Since(unlabelled)
	t.Logf("calls bypassed Envoy %.1f s after the label was gone, the call included", took.Seconds())
	if took > 2*time.Second {
		t.Errorf("unlabelled: %s, want 2 s at most", took)
	}
	c.label(t, "enabled")
	c.everyNode(t)
	c.uninstall(t)
	if err := c.direct(from); err != nil {
		t.Errorf("after the end: %v", err)
	}
	c.since(t, before)
	c.label(t, "-")
}

func (c *cluster) helmTestPasses(t *testing.T) {
	code, said := c.helmTest(t)
	if code != 0 || !strings.Contains(said, "redirected: 2 backends") {
		t.Errorf("helm test ended with %d:\n%s", code, said)
	}
}

// helmTestFails stops both Envoys as a debugger would: they hold their sockets
// and never answer. So do those that kubelet starts in their place.
func (c *cluster) helmTestFails(t *testing.T) {
	var resume []func()
	for _, node := range nodes() {
		resume = append(resume, c.keepStopped(t, node, envoyProcess))
	}
	from := c.client(t, nodeA)
	eventually(t, 30*time.Second, func() error { return c.direct(from) })
	code, said := c.helmTest(t)
	if code == 0 || !strings.Contains(said, "not redirected") {
		t.Errorf("helm test of a broken Envoy ended with %d:\n%s", code, said)
	}
	for _, resume := range resume {
		resume()
	}
	// Kubelet waits ever longer before it restarts an Envoy that was killed before.
	for _, node := range nodes() {
		from := c.client(t, node)
		eventually(t, 3*time.Minute, func() error { return c.spread(t, from) })
	}
	c.helmTestPasses(t)
	// An upgrade replaces all pods at once that are not available yet, and was seen
	// to stop there, with the old ones available again.
	c.settled(t)
}

// echoSettled says whether the servers are no more than they should be.
func (c *cluster) echoSettled(t *testing.T) error {
	t.Helper()
	names := c.kubectl(t, "-n", "demo", "get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[*].metadata.name}")
	if len(strings.Fields(names)) != 4 {
		return errors.New("old servers are still ending: " + names)
	}
	return nil
}
