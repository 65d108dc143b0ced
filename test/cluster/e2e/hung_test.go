// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"
)

// hung stops processes as a debugger would, so that they hold their sockets and
// never answer: kubelet restarts the one that hangs, and no other. A hung Envoy is
// restarted within a minute, whether or not there is an agent.
func (c *cluster) hung(t *testing.T) {
	for _, tt := range []struct {
		what, node string
		stopped    []string
		// agent and envoy are how often each is restarted.
		agent, envoy int
	}{
		{"Envoy", nodeB, []string{envoyProcess}, 0, 1},
		{"Envoy and the agent", nodeA, []string{agentProcess, envoyProcess}, 1, 1},
	} {
		t.Run(tt.what, func(t *testing.T) {
			pod := c.agentOn(t, tt.node)
			agent, envoy := c.restarts(t, pod, "containerStatuses", "agent"), c.restarts(t, pod, "initContainerStatuses", "envoy")
			for _, pattern := range tt.stopped {
				c.signal(t, tt.node, "STOP", pattern)
			}
			began := time.Now()
			from := c.client(t, tt.node)
			eventually(t, time.Minute, func() error {
				if n := c.restarts(t, pod, "initContainerStatuses", "envoy") - envoy; n == 0 {
					return fmt.Errorf("Envoy on %s is not restarted", tt.node)
				}
				return nil
			})
			t.Logf("Envoy restarted %.1f s after it stopped", time.Since(began).Seconds())
			eventually(t, time.Minute, func() error {
				if n := c.restarts(t, pod, "containerStatuses", "agent") - agent; n < tt.agent {
					return fmt.Errorf("the agent is not restarted")
				}
				return c.spread(t, from)
			})
			t.Logf("redirected again after %.1f s", time.Since(began).Seconds())
			if n := c.restarts(t, pod, "containerStatuses", "agent") - agent; n != tt.agent {
				t.Errorf("the agent was restarted %d times, want %d", n, tt.agent)
			}
			if n := c.restarts(t, pod, "initContainerStatuses", "envoy") - envoy; n != tt.envoy {
				t.Errorf("Envoy was restarted %d times, want %d", n, tt.envoy)
			}
		})
	}
	c.settled(t)
	c.everyNode(t)
}

// restarts is how often kubelet restarted a container of a pod of the DaemonSet.
func (c *cluster) restarts(t *testing.T, pod, list, container string) int {
	t.Helper()
	text := c.kubectl(t, "-n", release, "get", "pod", pod,
		"-o", fmt.Sprintf(`jsonpath={.status.%s[?(@.name=="%s")].restartCount}`, list, container))
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("restarts of %s in %s: %v", container, pod, err)
	}
	return n
}

// keepStopped stops every process of a node whose command line matches, those that
// are started later too, until the function that it returns is called: this goes on
// with the last of them.
func (c *cluster) keepStopped(t *testing.T, node, pattern string) (resume func()) {
	t.Helper()
	// It stops them once for each line that it reads.
	cmd := c.command("test/cluster/enter.sh", node, "sh", "-c", `while read -r _; do pkill -STOP -f "$0"; done; pkill -CONT -f "$0"`, pattern)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan error, 1)
	go func() {
		// Well below the time that an Envoy takes to start.
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				done <- in.Close()
				return
			case <-tick.C:
			}
			if _, err := io.WriteString(in, "\n"); err != nil {
				done <- err
				return
			}
		}
	}()
	return func() {
		close(quit)
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // pkill fails where no process is left to go on.
	}
}
