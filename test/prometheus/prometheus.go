// SPDX-License-Identifier: Apache-2.0

// Package prometheus reads what the chart gives Prometheus and Grafana, so that tests can
// ask a real Prometheus for it.
package prometheus

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// Env is the variable with the directory that the Makefile puts Prometheus into.
const Env = "NODEVOY_PROMETHEUS"

// Program is the path of Prometheus.
func Program() string { return filepath.Join(os.Getenv(Env), "prometheus") }

// Config has targets, by the name of their node, scraped each second, as the chart's
// monitors have agents scraped.
func Config(targets map[string]string) string {
	text := "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: nodevoy\n  honor_labels: true\n  static_configs:\n"
	for node, target := range targets {
		text += fmt.Sprintf("  - {targets: [%q], labels: {node: %q}}\n", target, node)
	}
	return text
}

// Dashboard are the queries of the dashboard in this directory of a chart, by their panel.
func Dashboard(chart string) (map[string]string, error) {
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	text, err := os.ReadFile(filepath.Join(chart, "files/dashboard.json"))
	if err == nil {
		err = json.Unmarshal(text, &dashboard)
	}
	if err != nil {
		return nil, fmt.Errorf("read the dashboard: %w", err)
	}
	out := map[string]string{}
	grafana := strings.NewReplacer("$__rate_interval", "15s", "$namespace", ".*", "$service", ".*")
	for _, p := range dashboard.Panels {
		for i, target := range p.Targets {
			out[fmt.Sprintf("%s, %d", p.Title, i)] = grafana.Replace(target.Expr)
		}
	}
	return out, nil
}

// Alerts are the expressions of the chart's rules, by the alert.
func Alerts(chart string) (map[string]string, error) {
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	text, err := os.ReadFile(filepath.Join(chart, "files/rules.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &rules)
	}
	if err != nil {
		return nil, fmt.Errorf("read the rules: %w", err)
	}
	out := map[string]string{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			out[r.Alert] = r.Expr
		}
	}
	return out, nil
}

// Selectors are the metrics that an expression selects, with their labels.
func Selectors(expr string) []string {
	return regexp.MustCompile(`\b(?:nodevoy_\w+|up)\b(?:\{[^}]*\})?`).FindAllString(expr, -1)
}

// Query is the URL of a query at this address of Prometheus.
func Query(address, expr string) string {
	return "http://" + address + "/api/v1/query?query=" + url.QueryEscape(expr)
}

// Results is how many results the answer to a query has.
func Results(answer string) (int, error) {
	var got struct {
		Status, Error string
		Data          struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal([]byte(answer), &got); err != nil {
		return 0, fmt.Errorf("parse %q: %w", answer, err)
	}
	if got.Status != "success" {
		return 0, errors.New(got.Error)
	}
	return len(got.Data.Result), nil
}
