// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab/echo"
	"github.com/nodevoy/nodevoy/test/prometheus"
)

// prometheusAddress is where Prometheus listens on a node.
const prometheusAddress = "127.0.0.1:9095"

// scraped has a real Prometheus scrape the agents of both nodes, and asks it for all that
// the dashboard shows.
func (c *cluster) scraped(t *testing.T) {
	began := time.Now()
	c.kubectl(t, "apply", "-f", "test/cluster/e2e/testdata/broken.yaml")
	defer c.kubectl(t, "delete", "-f", "test/cluster/e2e/testdata/broken.yaml")
	defer c.startPrometheus(t)()
	queries, err := prometheus.Dashboard(filepath.Join(c.dir, chart))
	if err != nil {
		t.Fatal(err)
	}
	alerts, err := prometheus.Alerts(filepath.Join(c.dir, chart))
	if err != nil {
		t.Fatal(err)
	}
	for alert, expr := range alerts {
		for i, selector := range prometheus.Selectors(expr) {
			queries[fmt.Sprintf("%s, %d", alert, i)] = selector
		}
	}
	for _, node := range nodes() {
		queries["up on "+node] = fmt.Sprintf("up{node=%q} == 1", node)
		queries["requests on "+node] = fmt.Sprintf("nodevoy_requests_total{node=%q,namespace=\"demo\",service=\"echo\"} > 0", node)
	}
	eventually(t, 90*time.Second, func() error {
		c.callEverything(t)
		for what, expr := range queries {
			n, err := c.results(expr)
			if err == nil && n == 0 {
				err = errors.New("no data")
			}
			if err != nil {
				return fmt.Errorf("%s: %s: %w", what, expr, err)
			}
			delete(queries, what)
		}
		return nil
	})
	t.Logf("prometheus: %.1f s", time.Since(began).Seconds())
}

// startPrometheus starts one on the first node; the function ends it.
func (c *cluster) startPrometheus(t *testing.T) (end func()) {
	t.Helper()
	targets := map[string]string{}
	for _, node := range nodes() {
		addresses := strings.Fields(c.kubectl(t, "get", "node", node, "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`))
		if len(addresses) == 0 {
			t.Fatalf("%s has no address", node)
		}
		targets[node] = net.JoinHostPort(addresses[0], "23720")
	}
	dir, err := os.MkdirTemp(filepath.Join(c.dir, ".cache/cluster"), "prometheus-") //nolint:usetesting // nodes have it at the same path
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(config, []byte(prometheus.Config(targets)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := c.command("test/cluster/enter.sh", nodeA, prometheus.Program(),
		"--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", prometheusAddress)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		c.signal(t, nodeA, "TERM", "^"+prometheus.Program())
		_ = cmd.Wait() // By the signal.
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
}

// results is how many Prometheus has for an expression.
func (c *cluster) results(expr string) (int, error) {
	text, err := c.attempt("test/cluster/enter.sh", nodeA, "curl", "-sS", prometheus.Query(prometheusAddress, expr))
	if err != nil {
		return 0, err
	}
	return prometheus.Results(text)
}

// callEverything makes calls of each kind from both nodes; those to broken Services fail.
func (c *cluster) callEverything(t *testing.T) {
	t.Helper()
	ip := func(service string) string {
		return c.kubectl(t, "-n", "demo", "get", "service", service, "-o", "jsonpath={.spec.clusterIP}")
	}
	web, dead, silent := ip("echo"), ip("dead"), ip("silent")
	for _, node := range nodes() {
		from := c.bare(t, node)
		for _, to := range []struct{ protocol, target string }{
			{echo.HTTP1, web + ":80"},
			{echo.GRPC, web + ":9090"},
			{echo.TCP, web + ":7000"},
			{echo.TCP, silent + ":80"},
			{echo.HTTP1, dead + ":80"},
			{echo.TCP, dead + ":81"},
		} {
			from.target = to.target
			spec := echo.Spec{Protocol: to.protocol, Requests: 10, Connections: 5, Fresh: to.protocol == echo.TCP, Timeout: 5 * time.Second}
			if _, err := c.call(from, spec); err != nil {
				t.Error(err)
			}
		}
		// Not HTTP, where HTTP is declared. What is answered, if anything, is not of interest.
		_, _ = c.attempt("test/cluster/enter.sh", append([]string{node}, append(c.inside(t, from, "client"), "bash", "-c",
			"exec 3<>/dev/tcp/"+web+"/9090; printf 'not HTTP\\r\\n\\r\\n' >&3; head -n 1 <&3")...)...)
	}
}
