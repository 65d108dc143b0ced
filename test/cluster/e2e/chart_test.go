// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// release is the name of the Helm release and of its namespace.
const release = "nodevoy"

// The chart's directory, and how long helm may take on a busy machine.
const (
	chart       = "charts/nodevoy"
	helmTimeout = "--timeout=240s"
)

// install installs the chart and waits, as the README says. Pod mode is what the
// nodes choose by themselves.
func (c *cluster) install(t *testing.T) {
	t.Helper()
	began := time.Now()
	args := []string{"install", release, chart, "--namespace", release, "--create-namespace", "--wait", helmTimeout, "--set", "monitoring.enabled=true"}
	if c.redirect != podMode {
		args = append(args, "--set", "redirect.mode="+c.redirect)
	}
	c.run(t, "helm", args...)
	t.Logf("helm install --wait: %.1f s", time.Since(began).Seconds())
}

// upgrade changes values, and waits until every node has the new pods only.
func (c *cluster) upgrade(t *testing.T, args ...string) {
	t.Helper()
	began := time.Now()
	c.run(t, "helm", append([]string{"upgrade", release, chart, "--namespace", release, "--reuse-values", "--wait", helmTimeout}, args...)...)
	t.Logf("helm upgrade --wait: %.1f s", time.Since(began).Seconds())
	c.settled(t)
}

// settled waits until no pod of the DaemonSet is ending.
func (c *cluster) settled(t *testing.T) {
	t.Helper()
	c.kubectl(t, "-n", release, "rollout", "status", "daemonset/"+release, "--timeout=240s")
	eventually(t, 2*time.Minute, func() error {
		if n := len(c.agents(t)); n != len(nodes()) {
			return errors.New("old pods are still ending")
		}
		return nil
	})
}

// uninstall removes the chart and waits until its pods are gone.
func (c *cluster) uninstall(t *testing.T) {
	t.Helper()
	began := time.Now()
	c.run(t, "helm", "uninstall", release, "--namespace", release, "--wait", helmTimeout)
	eventually(t, 2*time.Minute, func() error {
		if len(c.agents(t)) > 0 {
			return errors.New("pods are still ending")
		}
		return nil
	})
	t.Logf("helm uninstall, until the last pod was gone: %.1f s", time.Since(began).Seconds())
}

// helmTest runs `helm test` and returns its exit code and everything it said.
func (c *cluster) helmTest(t *testing.T) (int, string) {
	t.Helper()
	began := time.Now()
	out, err := c.attempt("helm", "test", release, "--namespace", release, "--logs", helmTimeout)
	t.Logf("helm test: %.1f s", time.Since(began).Seconds())
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, out
	case errors.As(err, &exit):
		return exit.ExitCode(), err.Error()
	}
	t.Fatal(err)
	return 0, ""
}

// agents are the names of the DaemonSet's pods, those that are ending too.
func (c *cluster) agents(t *testing.T) []string {
	t.Helper()
	return strings.Fields(c.kubectl(t, "-n", release, "get", "pods", "-l", "app.kubernetes.io/name=nodevoy",
		"-o", "jsonpath={.items[*].metadata.name}"))
}

// agentOn is the pod of the DaemonSet on a node, when it is settled.
func (c *cluster) agentOn(t *testing.T, node string) string {
	t.Helper()
	name := c.kubectl(t, "-n", release, "get", "pods", "-l", "app.kubernetes.io/name=nodevoy",
		"--field-selector=spec.nodeName="+node, "-o", "jsonpath={.items[*].metadata.name}")
	if len(strings.Fields(name)) != 1 {
		t.Fatalf("%s has the pods %q, want one", node, name)
	}
	return name
}
