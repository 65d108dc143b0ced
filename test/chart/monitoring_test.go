// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// promtool runs it, from where the Makefile puts Prometheus.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	out, failure := run(t, nil, filepath.Join(os.Getenv("NODEVOY_PROMETHEUS"), "promtool"), args...)
	if failure != "" {
		t.Errorf("promtool %s: %s%s", strings.Join(args, " "), out, failure)
	}
}

func TestPromtool(t *testing.T) {
	promtool(t, "check", "rules", "--lint-fatal", filepath.Join(chartDir, "files/rules.yaml"))
	promtool(t, "test", "rules", "testdata/rules_test.yaml")
}

// TestAlertsAreComplete: each alert says what is wrong and what to do, is what the chart
// installs, and is fired by a test.
func TestAlertsAreComplete(t *testing.T) {
	type alert struct {
		Alert, Expr         string
		Labels, Annotations map[string]string
	}
	var rules struct {
		Groups []struct{ Rules []alert }
	}
	if err := yaml.Unmarshal(read(t, filepath.Join(chartDir, "files/rules.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	tests := string(read(t, "testdata/rules_test.yaml"))
	installed := string(render(t, "--values", "testdata/all.values.yaml"))
	if len(rules.Groups) != 1 || len(rules.Groups[0].Rules) < 10 {
		t.Fatalf("the rules are %+v", rules)
	}
	for _, a := range rules.Groups[0].Rules {
		if a.Annotations["summary"] == "" || a.Annotations["description"] == "" || a.Labels["severity"] == "" {
			t.Errorf("%s has no summary, description or severity", a.Alert)
		}
		if !strings.Contains(tests, `"`+a.Alert+`"`) {
			t.Errorf("no test fires %s", a.Alert)
		}
		if !strings.Contains(installed, "alert: "+a.Alert+"\n") {
			t.Errorf("the chart doesn't install %s", a.Alert)
		}
	}
}

// TestMetricsExist: what dashboard and alerts ask for is on the page of metrics, which is
// held to the code.
func TestMetricsExist(t *testing.T) {
	page := string(read(t, filepath.Join(chartDir, "METRICS.md")))
	for _, file := range []string{"files/rules.yaml", "files/dashboard.json"} {
		for _, name := range regexp.MustCompile(`nodevoy_[a-z_]+`).FindAllString(string(read(t, filepath.Join(chartDir, file))), -1) {
			family := strings.TrimSuffix(name, "_bucket")
			if !strings.Contains(page, "| `"+family+"` |") {
				t.Errorf("%s asks for %s, which METRICS.md doesn't have", file, name)
			}
		}
	}
}

// TestDashboard: Grafana's sidecar finds it by its label, and it is JSON as the file is.
func TestDashboard(t *testing.T) {
	for _, document := range documents(t, render(t, "--set", "monitoring.dashboard.enabled=true")) {
		var object struct {
			Kind     string
			Metadata struct{ Labels map[string]string }
			Data     map[string]string
		}
		if err := yaml.Unmarshal(document, &object); err != nil {
			t.Fatal(err)
		}
		if object.Kind != "ConfigMap" || object.Metadata.Labels["grafana_dashboard"] != "1" {
			continue
		}
		if got, want := strings.TrimSpace(object.Data["nodevoy.json"]), strings.TrimSpace(string(read(t, filepath.Join(chartDir, "files/dashboard.json")))); got != want || !json.Valid([]byte(got)) {
			t.Errorf("the dashboard is %s", got)
		}
		return
	}
	t.Error("there is no ConfigMap with the label")
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
