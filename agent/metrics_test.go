// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/xds/server"
)

func TestWatchMetrics(t *testing.T) {
	health := []kinds.Health{{Kind: "Service", Synced: true}, {Kind: "Pod", Synced: true, Err: errors.New("forbidden")}, {Kind: "Node"}}
	const want = `
# HELP nodevoy_watch_failing 1 while objects of this kind can't be read or followed; what was read before stays in force.
# TYPE nodevoy_watch_failing gauge
nodevoy_watch_failing{kind="Node"} 0
nodevoy_watch_failing{kind="Pod"} 1
nodevoy_watch_failing{kind="Service"} 0
# HELP nodevoy_watch_synced 1 once every object of this kind has been read.
# TYPE nodevoy_watch_synced gauge
nodevoy_watch_synced{kind="Node"} 0
nodevoy_watch_synced{kind="Pod"} 1
nodevoy_watch_synced{kind="Service"} 1
`
	c := newWatchCollector(func() []kinds.Health { return health })
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// gaugeOf is a gauge that follows from the state, as newMetrics exports it: the one
// with this value of its label, or the only one.
func gaugeOf(t *testing.T, state *atomic.Pointer[State], name, label string) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	newMetrics(registry, state)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s %s", name, label)
	return 0
}

// TestStateMetrics: every gauge that follows from the state, with all its labels.
func TestStateMetrics(t *testing.T) {
	state := &atomic.Pointer[State]{}
	state.Store(&State{
		Phase: PhaseRedirecting, Mode: plan.HostMode, Envoy: server.Status{Connected: true, InUse: 3, Memory: 300}, MemoryLimit: 400,
		Node:           model.Build(oneService(), model.DefaultOptions()),
		SourceProblems: []model.Problem{{Kind: "File"}},
	})
	for _, test := range []struct {
		name, label string
		want        float64
	}{
		{"envoy_connected", "", 1},
		{"redirecting", "", 1},
		{"frontends_in_use", "", 3},
		{"cluster_memory_bytes", "", 300},
		{"cluster_memory_limit_bytes", "", 400},
		{"object_problems", "", 1},
		{"redirect_mode", "host", 1},
		{"redirect_mode", "pod", 0},
		{"enrolled_pods", "true", 1},
		{"enrolled_pods", "false", 0},
		{"pods", "true", 1},
		{"pods", "false", 0},
		{"frontends", "detect", 1},
		{"frontends", "tcp", 0},
		{"frontends", "bypass", 0},
	} {
		if got := gaugeOf(t, state, "nodevoy_"+test.name, test.label); got != test.want {
			t.Errorf("%s %s: %v, want %v", test.name, test.label, got, test.want)
		}
	}
}
