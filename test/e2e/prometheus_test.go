// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/prometheus"
)

// chartDir is the chart's directory, and prometheusAddress where Prometheus listens.
const chartDir, prometheusAddress = "../../charts/nodevoy", "127.0.0.1:9090"

// TestPrometheus: a real Prometheus that scrapes the agent has data for each query of the
// dashboard, and for each metric of the alerts, none of which fires for want of sense.
func TestPrometheus(t *testing.T) {
	w := newFixture(t, podBridged())
	w.setDead(t)
	w.start(t)
	w.startPrometheus(t)
	queries := must(prometheus.Dashboard(chartDir))(t)
	if len(queries) < 30 {
		t.Fatalf("the dashboard has %d queries", len(queries))
	}
	for title, query := range queries {
		w.untilData(t, title, query, w.callAll)
	}
	for alert, expr := range must(prometheus.Alerts(chartDir))(t) {
		for _, selector := range prometheus.Selectors(expr) {
			w.untilData(t, alert, selector, w.callAll)
		}
		if _, err := w.query(t, expr); err != nil {
			t.Errorf("alert %s: %v", alert, err)
		}
	}
}

// startPrometheus starts one on the node, which scrapes the node's agent.
func (w *fixture) startPrometheus(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yaml")
	check(t, os.WriteFile(config, []byte(prometheus.Config(map[string]string{"node-a": "127.0.0.1:23720"})), 0o600))
	must(w.node.Start("prometheus.log", prometheus.Program(),
		"--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", prometheusAddress))(t)
}

// query asks Prometheus; it returns how many results there are.
func (w *fixture) query(t *testing.T, expr string) (int, error) {
	t.Helper()
	text, err := w.node.Get(t.Context(), prometheus.Query(prometheusAddress, expr))
	if err != nil {
		return 0, err
	}
	return prometheus.Results(text)
}

// untilData makes calls until a query has a result.
func (w *fixture) untilData(t *testing.T, what, expr string, calls func(*testing.T)) {
	t.Helper()
	check(t, lab.Until(limit(t), fmt.Sprintf("data for %s: %s", what, expr), func() error {
		n, err := w.query(t, expr)
		if err == nil && n == 0 {
			calls(t)
			err = errors.New("no data")
		}
		return err
	}))
}
