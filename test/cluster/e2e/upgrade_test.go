// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// nothingLost restarts everything in the path under load.
func (c *cluster) nothingLost(t *testing.T) {
	c.adaptLoad(t)
	t.Run("upgrade", func(t *testing.T) {
		c.unnoticed(t, "helm upgrade", func(attempt int) {
			before := c.agents(t)
			c.upgrade(t, "--set-string", fmt.Sprintf("podAnnotations.restarted=%d", attempt))
			for _, now := range c.agents(t) {
				if slices.Contains(before, now) {
					t.Errorf("%s was not replaced", now)
				}
			}
		})
		c.everyNode(t)
	})
	t.Run("pods deleted", func(t *testing.T) {
		c.unnoticed(t, "kubectl delete pod, one after another", func(int) {
			for _, node := range nodes() {
				c.kubectl(t, "-n", release, "delete", "pod", c.agentOn(t, node), "--wait", "--timeout=120s")
				c.settled(t)
			}
		})
		c.everyNode(t)
	})
	t.Run("backends restarted", func(t *testing.T) {
		c.unnoticed(t, "rolling restart of the backends", func(int) {
			c.kubectl(t, "-n", "demo", "rollout", "restart", "deployment/echo")
			c.demoReady(t)
			eventually(t, time.Minute, func() error { return c.echoSettled(t) })
		})
		c.everyNode(t)
	})
}

// everyNode wants the calls of both nodes' clients to be spread.
func (c *cluster) everyNode(t *testing.T) {
	t.Helper()
	for _, node := range nodes() {
		from := c.client(t, node)
		eventually(t, 20*time.Second, func() error { return c.spread(t, from) })
	}
}
