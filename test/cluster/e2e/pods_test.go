// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// chosen wants every agent to be in the mode that it should be in, and to have
// left nothing of the other.
func (c *cluster) chosen(t *testing.T) {
	t.Helper()
	for _, node := range nodes() {
		eventually(t, time.Minute, func() error {
			var view view.Status
			if err := c.nodevoy(t, node, &view, "status", "-o", "json"); err != nil {
				return err
			}
			if r := view.Redirect; r.Mode != c.redirect || r.Leftover != "" {
				return fmt.Errorf("%s is in mode %q, left over: %q, because %q; want mode %s", node, r.Mode, r.Leftover, r.Why, c.redirect)
			}
			return nil
		})
	}
}

// onlyInItsPlace wants nodevoy to have rules where its mode has them, and none
// elsewhere.
func (c *cluster) onlyInItsPlace(t *testing.T) {
	t.Helper()
	other := map[string]string{hostMode: podMode, podMode: hostMode}[c.redirect]
	for _, node := range nodes() {
		if len(c.leftIn(t, node, c.redirect)) == 0 {
			t.Errorf("%s has no rules of mode %s", node, c.redirect)
		}
		eventually(t, time.Minute, func() error {
			if left := c.leftIn(t, node, other); len(left) > 0 {
				return fmt.Errorf("%s has rules of mode %s: %q", node, other, left)
			}
			return nil
		})
	}
}

// modeChanged goes over to the other mode and back, under load.
func (c *cluster) modeChanged(t *testing.T) {
	for _, mode := range []string{hostMode, podMode} {
		c.under(t, "change to mode "+mode, func() { c.upgrade(t, "--set", "redirect.mode="+mode) })
		c.redirect = mode
		c.chosen(t)
		c.everyNode(t)
		c.onlyInItsPlace(t)
	}
}

// filtered lets the servers' pods take connections from one client's addresses
// only, as a NetworkPolicy does. In pod mode its calls have these.
func (c *cluster) filtered(t *testing.T) {
	from, stranger := c.client(t, nodeA), c.bared(t, c.pods(t, "stranger")[0], "stranger")
	backends := c.pods(t, "echo")
	for _, b := range backends {
		c.admit(t, b, from)
	}
	eventually(t, 10*time.Second, func() error { return c.refused(stranger) })
	for _, address := range c.addresses(t) {
		from.target = address + ":80"
		if err := c.spread(t, from); err != nil {
			t.Errorf("HTTP to %s: %v", from.target, err)
		}
		from.target = address + ":7000"
		if err := c.plain(from); err != nil {
			t.Errorf("TCP to %s: %v", from.target, err)
		}
	}
	eventually(t, 20*time.Second, func() error { return c.logged(t, nodeA, "demo/echo/tcp", backends) })
}

// admit refuses, until the test ends, connections to a server that come neither
// from a client's addresses nor from kubelet, which asks whether it is ready.
func (c *cluster) admit(t *testing.T, server, client pod) {
	t.Helper()
	pod := c.inside(t, server, server.name)
	filter := func(tables string, rule ...string) {
		c.onNode(t, server.node, slices.Concat(pod, []string{tables, "-w"}, rule)...)
	}
	kubelet := strings.Fields(c.onNode(t, server.node, append(pod, "ip", "-4", "route", "show", "default")...))[2]
	filter("iptables", "-A", "INPUT", "-s", kubelet, "-j", "ACCEPT")
	for _, ip := range client.ips {
		filter(tablesOf(ip), "-A", "INPUT", "-s", ip, "-j", "ACCEPT")
	}
	for _, tables := range []string{"iptables", "ip6tables"} {
		filter(tables, "-A", "INPUT", "-p", "tcp", "--syn", "-m", "multiport", "--dports", "8080,7000", "-j", "DROP")
		t.Cleanup(func() { filter(tables, "-F", "INPUT") })
	}
}

func tablesOf(ip string) string {
	if strings.Contains(ip, ":") {
		return "ip6tables"
	}
	return "iptables"
}

// plain says what is wrong unless connections of plain TCP reach several pods,
// from the caller's own address.
func (c *cluster) plain(from pod) error {
	result, err := c.call(from, echo.Spec{Protocol: echo.TCP, Requests: 40, Fresh: true})
	if err != nil {
		return err
	}
	if result.Failed > 0 || len(result.Pods) < 2 {
		return fmt.Errorf("%s: %d failed %v, answered by %v", from.name, result.Failed, result.Errors, result.Pods)
	}
	return c.source(from, result)
}

// refused says what is wrong unless no call gets through.
func (c *cluster) refused(from pod) error {
	result, err := c.call(from, echo.Spec{Protocol: echo.HTTP1, Requests: 4, Connections: 4, Fresh: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	if result.Failed < result.Requests {
		return fmt.Errorf("%s: answered by %v", from.name, result.Pods)
	}
	return nil
}

// withoutKubeProxy leaves a node, which is to be rebooted after it, with nobody
// who makes anything of a Service's address but nodevoy.
func (c *cluster) withoutKubeProxy(t *testing.T) {
	// The agent's own way to the API server is such an address.
	c.upgrade(t, "--set-json", `extraEnv=[{"name":"KUBERNETES_SERVICE_HOST","value":"172.30.0.1"},{"name":"KUBERNETES_SERVICE_PORT","value":"6443"}]`)
	from := c.bare(t, nodeB)
	stranger := c.bared(t, c.pods(t, "stranger")[0], "stranger")
	if err := c.direct(stranger); err != nil {
		t.Fatalf("with kube-proxy: %v", err)
	}
	c.signal(t, nodeB, "KILL", proxyProcess)
	eventually(t, 10*time.Second, func() error {
		if len(c.processes(t, nodeB, proxyProcess)) > 0 {
			return errors.New("kube-proxy is still there")
		}
		return nil
	})
	c.onNode(t, nodeB, c.program("kube-proxy"), "--cleanup")
	if left := c.ruledOn(t, nodeB); len(left) > 0 {
		t.Fatalf("%s still has rules for the Service: %q", nodeB, left)
	}
	eventually(t, 10*time.Second, func() error { return c.refused(stranger) })
	if err := c.spread(t, from); err != nil {
		t.Errorf("without kube-proxy: %v", err)
	}
	c.kubectl(t, "-n", release, "delete", "pod", c.agentOn(t, nodeB), "--wait", "--timeout=120s")
	c.settled(t)
	for _, address := range c.addresses(t) {
		from.target = address + ":80"
		eventually(t, 20*time.Second, func() error { return c.spread(t, from) })
	}
	if err := c.refused(stranger); err != nil {
		t.Errorf("at the end: %v", err)
	}
}

// ruledOn are the rules of a node, by any program, that name the Service's
// addresses.
func (c *cluster) ruledOn(t *testing.T, node string) []string {
	t.Helper()
	listing := c.onNode(t, node, "nft", "list", "ruleset") + "\n" + c.onNode(t, node, "iptables-legacy-save")
	addresses := c.addresses(t)
	var found []string
	for line := range strings.Lines(listing) {
		if slices.ContainsFunc(addresses, func(a string) bool { return strings.Contains(line, " "+strings.Trim(a, "[]")+" ") }) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}
