// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nodevoy/nodevoy/agent/envoystats"
	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
)

const (
	metricsPage = "../charts/nodevoy/METRICS.md"
	// The page's tables are below these lines, up to an empty one.
	agentMark = "<!-- agent: go test ./agent -run MetricsPage -update -->"
	envoyMark = "<!-- envoy: go test ./agent -run MetricsPage -update -->"
)

var update = flag.Bool("update", false, "rewrite the tables of metrics")

// TestMetricsPage: the page has every metric of nodevoy, as the code describes it.
func TestMetricsPage(t *testing.T) {
	text, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for mark, families := range map[string][]envoystats.Family{agentMark: ownFamilies(t), envoyMark: envoystats.Families()} {
		before, rest, found := strings.Cut(want, mark+"\n")
		_, after, ended := strings.Cut("\n"+rest, "\n\n")
		if !found || !ended {
			t.Fatalf("%s has no table below %s", metricsPage, mark)
		}
		want = before + mark + "\n" + metricsTable(families) + "\n" + after
	}
	if *update {
		if err := os.WriteFile(metricsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := diff.Diff(want, string(text)); d != "" {
		t.Errorf("%s, to be rewritten with -update (-want +got):\n%s", metricsPage, d)
	}
}

func metricsTable(families []envoystats.Family) string {
	var out strings.Builder
	out.WriteString("| metric | type | labels | what it says | what it is for |\n|---|---|---|---|---|\n")
	for _, f := range families {
		labels := "`" + strings.Join(f.Labels, "`, `") + "`"
		if len(f.Labels) == 0 {
			labels = ""
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s | %s |\n", f.Name, strings.ToLower(f.Type.String()), labels, f.Help, f.Use)
	}
	return out.String()
}

// ownFamilies are the agent's own metrics, each with something in it.
func ownFamilies(t *testing.T) []envoystats.Family {
	t.Helper()
	registry, state := prometheus.NewRegistry(), &atomic.Pointer[State]{}
	state.Store(&State{At: time.Now(), Node: model.Build(oneService(), model.DefaultOptions())})
	m := newMetrics(registry, state)
	for _, err := range []error{nil, errors.New("failed")} {
		m.stage("publish")(err)
	}
	registry.MustRegister(newWatchCollector(func() []kinds.Health { return []kinds.Health{{Kind: "Pod"}} }))
	gathered, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	uses := uses()
	var out []envoystats.Family
	for _, g := range gathered {
		f := envoystats.Family{Name: g.GetName(), Type: g.GetType(), Help: g.GetHelp(), Use: uses[g.GetName()]}
		for _, l := range g.Metric[0].Label {
			f.Labels = append(f.Labels, l.GetName())
		}
		if f.Use == "" {
			t.Errorf("nobody knows what %s is for", f.Name)
		}
		delete(uses, f.Name)
		out = append(out, f)
	}
	for name := range uses {
		t.Errorf("%s is no metric", name)
	}
	slices.SortFunc(out, func(a, b envoystats.Family) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// uses say what the agent's own metrics are for.
func uses() map[string]string {
	return map[string]string{
		"nodevoy_cluster_memory_bytes":                 "How near the node is to leaving Services to kube-proxy.",
		"nodevoy_cluster_memory_limit_bytes":           "The limit of the former: `--cluster-memory`.",
		"nodevoy_drift_repaired_total":                 "Something else that writes rules on the node. Alert on repetition.",
		"nodevoy_enrolled_pods":                        "Pods that should be redirected and are not: `status` names them.",
		"nodevoy_envoy_connected":                      "An Envoy that is absent, or can't reach the agent.",
		"nodevoy_envoy_probe_failures_total":           "An Envoy that runs and does not serve.",
		"nodevoy_frontends":                            "What the agent takes Service ports for; what it bypasses.",
		"nodevoy_frontends_evicted_total":              "Envoy's memory is too small for what pods call. Alert on it.",
		"nodevoy_frontends_in_use":                     "What the node's pods call.",
		"nodevoy_object_problems":                      "Objects that need a correction: `status` lists them.",
		"nodevoy_pending_changes_seconds":              "Changes that don't reach Envoy or the kernel, and an agent that is stuck. Alert above a minute.",
		"nodevoy_pods":                                 "How far enrolment has come.",
		"nodevoy_redirect_mode":                        "Which mode each node has chosen.",
		"nodevoy_redirecting":                          "The first metric to look at. Alert if 0 where pods are enrolled.",
		"nodevoy_redirection_stopped_total":            "An Envoy that fails again and again.",
		"nodevoy_stage_duration_seconds":               "Cost of changes to the agent, by stage.",
		"nodevoy_stage_failures_total":                 "Which stage fails, such as the rules.",
		"nodevoy_stage_last_success_timestamp_seconds": "When it last did not.",
		"nodevoy_watch_failing":                        "Lost permissions, or an API server that can't be reached. Alert on it.",
		"nodevoy_watch_synced":                         "What a starting agent waits for.",
		"nodevoy_xds_nacks_total":                      "Configuration that Envoy refuses: a fault of nodevoy. Alert on it.",
	}
}
