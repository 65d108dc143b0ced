// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The nodes of the cluster.
const (
	nodeA = "node-a"
	nodeB = "node-b"
)

func nodes() []string { return []string{nodeA, nodeB} }

// cluster is a running Kubernetes.
type cluster struct {
	// mode is kube-proxy's, redirect nodevoy's: hostMode or podMode.
	mode, redirect string
	// rate is the requests per second of the load.
	rate float64
	// dir is the repository's absolute path; env is for every program run.
	dir string
	env []string
}

// nodevoy's modes.
const (
	hostMode = "host"
	podMode  = "pod"
)

// start brings the cluster up, to be taken down when the test ends.
func (c *cluster) start(t *testing.T) {
	t.Helper()
	dir, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	built := filepath.Join(dir, ".cache/cluster")
	c.dir = dir
	c.env = append(os.Environ(),
		"KUBE_PROXY_MODE="+c.mode,
		"KUBECONFIG="+filepath.Join(built, "run/kubeconfig/admin"),
		"PATH="+filepath.Join(built, "bin")+":"+os.Getenv("PATH"),
		// Helm keeps its own state out of the user's home.
		"HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir(),
	)
	began := time.Now()
	t.Cleanup(func() {
		c.printUsage(t)
		began := time.Now()
		c.run(t, filepath.Join(dir, "test/cluster/down.sh"))
		t.Logf("cluster down in %.1f s", time.Since(began).Seconds())
	})
	c.run(t, filepath.Join(dir, "test/cluster/up.sh"))
	t.Logf("cluster up in %.1f s, kube-proxy in %s mode", time.Since(began).Seconds(), c.mode)
	c.printUsage(t)
}

// attempt runs a program in the repository's root and returns its standard
// output; what it wrote to standard error is in the error.
func (c *cluster) attempt(name string, args ...string) (string, error) {
	cmd := c.command(name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// command is a program to be run in the repository's root. It ends with the tests.
func (c *cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(c.program(name), args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// program is the cluster's own program of a name, if it has one.
func (c *cluster) program(name string) string {
	own := filepath.Join(c.dir, ".cache/cluster/bin", name)
	if _, err := os.Stat(own); err == nil {
		return own
	}
	return name
}

// run is attempt for what has to succeed.
func (c *cluster) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := c.attempt(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// kubectl runs kubectl, which has to succeed, and returns its output.
func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return c.run(t, "kubectl", args...)
}

// onNode runs a command as if logged in on a node.
func (c *cluster) onNode(t *testing.T, node string, command ...string) string {
	t.Helper()
	return c.run(t, "test/cluster/enter.sh", append([]string{node}, command...)...)
}

// processes are the ids, as the node has them, of its processes whose command
// line matches a regular expression.
func (c *cluster) processes(t *testing.T, node, pattern string) []string {
	t.Helper()
	out, err := c.attempt("test/cluster/enter.sh", node, "pgrep", "-f", pattern)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(out)
}

// signal sends a signal to the processes of a node whose command line matches,
// of which there has to be one.
func (c *cluster) signal(t *testing.T, node, signal, pattern string) {
	t.Helper()
	pids := c.processes(t, node, pattern)
	if len(pids) == 0 {
		t.Fatalf("%s runs no process like %q", node, pattern)
	}
	c.onNode(t, node, append([]string{"kill", "-" + signal}, pids...)...)
}

// Command lines of the processes on a node that tests interfere with.
const (
	agentProcess   = "^nodevoy agent "
	envoyProcess   = "^/usr/local/bin/envoy "
	kubeletProcess = "^kubelet "
	proxyProcess   = "^kube-proxy "
)

// eventually polls until the condition returns no error, and fails the test
// with the last one when the time is up.
func eventually(t *testing.T, limit time.Duration, condition func() error) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("after %s: %v", limit, err)
		case <-tick.C:
		}
	}
}

// controlGroup is the one of everything in the cluster.
func controlGroup() string { return cmp.Or(os.Getenv("CGROUP"), "nodevoy-cluster") }

// printUsage logs the memory that the cluster's processes have to themselves.
func (c *cluster) printUsage(t *testing.T) {
	group := controlGroup()
	for file, field := range map[string]string{
		"/sys/fs/cgroup/memory/" + group + "/memory.stat": "total_rss", // version 1
		"/sys/fs/cgroup/" + group + "/memory.stat":        "anon",      // version 2
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text))
		if i := slices.Index(fields, field); i >= 0 && i+1 < len(fields) {
			if bytes, err := strconv.Atoi(fields[i+1]); err == nil {
				t.Logf("memory of the whole cluster, without page cache: %d MiB", bytes>>20)
			}
		}
	}
}
