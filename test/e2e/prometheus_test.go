// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/nodevoy/nodevoy/test/lab"
)

// prometheusEnv is where the Makefile puts Prometheus.
const prometheusEnv = "NODEVOY_PROMETHEUS"

// TestPrometheus: a real Prometheus that scrapes the agent has data for each query of the
// dashboard, and for each metric of the alerts, none of which fires for want of sense.
func TestPrometheus(t *testing.T) {
	w := newFixture(t, podBridged())
	w.setDead(t)
	w.start(t)
	w.startPrometheus(t)
	for title, query := range dashboardQueries(t) {
		w.untilData(t, title, query, w.callAll)
	}
	for alert, expr := range alertExpressions(t) {
		for _, selector := range regexp.MustCompile(`\b(?:nodevoy_\w+|up)\b(?:\{[^}]*\})?`).FindAllString(expr, -1) {
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
	check(t, os.WriteFile(config, []byte(`
global: {scrape_interval: 1s}
scrape_configs:
- job_name: nodevoy
  honor_labels: true
  static_configs: [{targets: ["127.0.0.1:23720"], labels: {node: node-a}}]
`), 0o600))
	must(w.node.Start("prometheus.log", filepath.Join(os.Getenv(prometheusEnv), "prometheus"),
		"--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", "127.0.0.1:9090"))(t)
}

// query asks Prometheus; it returns how many results there are.
func (w *fixture) query(t *testing.T, expr string) (int, error) {
	t.Helper()
	text, err := w.node.Get(t.Context(), "http://127.0.0.1:9090/api/v1/query?query="+url.QueryEscape(expr))
	if err != nil {
		return 0, err
	}
	var answer struct {
		Status, Error string
		Data          struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return 0, err
	}
	if answer.Status != "success" {
		return 0, errors.New(answer.Error)
	}
	return len(answer.Data.Result), nil
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

// dashboardQueries are those of the chart's dashboard, by their panel.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	check(t, json.Unmarshal(must(os.ReadFile("../../charts/nodevoy/files/dashboard.json"))(t), &dashboard))
	out := map[string]string{}
	grafana := strings.NewReplacer("$__rate_interval", "15s", "$namespace", ".*", "$service", ".*")
	for _, p := range dashboard.Panels {
		for i, target := range p.Targets {
			out[fmt.Sprintf("%s, %d", p.Title, i)] = grafana.Replace(target.Expr)
		}
	}
	if len(out) < 30 {
		t.Fatalf("the dashboard has %d queries", len(out))
	}
	return out
}

// alertExpressions are those of the chart's rules, by the alert.
func alertExpressions(t *testing.T) map[string]string {
	t.Helper()
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	check(t, yaml.Unmarshal(must(os.ReadFile("../../charts/nodevoy/files/rules.yaml"))(t), &rules))
	out := map[string]string{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			out[r.Alert] = r.Expr
		}
	}
	return out
}
