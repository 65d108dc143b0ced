// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// metrics are the agent's own. Label values come from closed sets only: no
// pod, address or Service is ever one.
type metrics struct {
	duration      *prometheus.HistogramVec
	failures      *prometheus.CounterVec
	lastSuccess   *prometheus.GaugeVec
	nacks         *prometheus.CounterVec
	drift         prometheus.Counter
	releases      prometheus.Counter
	probeFailures prometheus.Counter
	connected     prometheus.Gauge
	redirecting   prometheus.Gauge
	pods          *prometheus.GaugeVec
	frontends     *prometheus.GaugeVec
	inUse         prometheus.Gauge
	problems      prometheus.Gauge
	mode          *prometheus.GaugeVec
	redirected    *prometheus.GaugeVec
}

// newMetrics registers the agent's metrics with reg. state is where the loop
// publishes.
func newMetrics(reg prometheus.Registerer, state *atomic.Pointer[State]) *metrics {
	f := promauto.With(reg)
	// Computed when scraped: a loop that hangs sets no gauge.
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "nodevoy", Name: "pending_changes_seconds",
		Help: "Age of the oldest change that is not in Envoy and the kernel yet; 0 when there is none. While the loop does not move, at least the time since it did.",
	}, func() float64 { return state.Load().pending(time.Now()).Seconds() })
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Namespace: "nodevoy", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "nodevoy", Name: name, Help: help})
	}
	m := &metrics{
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "nodevoy", Name: "stage_duration_seconds", Help: "Time a stage of a round took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}, []string{"stage"}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: "nodevoy", Name: "stage_failures_total", Help: "Times a stage of a round failed.",
		}, []string{"stage"}),
		lastSuccess: f.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "nodevoy", Name: "stage_last_success_timestamp_seconds", Help: "When a stage last succeeded, in Unix time.",
		}, []string{"stage"}),
		nacks: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: "nodevoy", Name: "xds_nacks_total", Help: "Responses that Envoy refused, by resource type.",
		}, []string{"type"}),
		drift:         counter("drift_repaired_total", "Foreign edits of nodevoy's own rules, sets and routes that were found and mended."),
		releases:      counter("redirection_stopped_total", "Times redirection was stopped because Envoy went away or did not answer."),
		probeFailures: counter("envoy_probe_failures_total", "Requests through Envoy's own listener that got no answer."),
		connected:     gauge("envoy_connected", "1 while an Envoy holds the configuration stream."),
		redirecting:   gauge("redirecting", "1 while enrolled pods' connections are redirected."),
		pods: f.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "nodevoy", Name: "pods", Help: "Pods on this node, by whether they are enrolled.",
		}, []string{"enrolled"}),
		frontends: f.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "nodevoy", Name: "frontends", Help: "Addresses of Service ports, by capture class; bypass are those left to kube-proxy.",
		}, []string{"class"}),
		inUse:    gauge("frontends_in_use", "Frontends that Envoy has asked for."),
		problems: gauge("object_problems", "Kubernetes objects, or fields of them, that could not be used as written."),
		mode: f.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "nodevoy", Name: "redirect_mode", Help: "1 for the mode of redirection: pod or host.",
		}, []string{"mode"}),
		redirected: f.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "nodevoy", Name: "enrolled_pods", Help: "Enrolled pods of this node, by whether their new connections go to Envoy.",
		}, []string{"redirected"}),
	}
	// An alert needs a zero to rise from.
	for _, kind := range []string{"cluster", "endpoints", "listener", "route"} {
		m.nacks.WithLabelValues(kind)
	}
	return m
}

// stage starts the clock of a stage; the function it returns stops it and
// records the outcome.
func (m *metrics) stage(name string) func(error) {
	start := time.Now()
	return func(err error) {
		m.duration.WithLabelValues(name).Observe(time.Since(start).Seconds())
		if err != nil {
			m.failures.WithLabelValues(name).Inc()
			return
		}
		m.lastSuccess.WithLabelValues(name).SetToCurrentTime()
	}
}

// observeNode sets the gauges that follow from the node's view.
func (m *metrics) observeNode(n *model.Node) {
	enrolled := 0
	for i := range n.Pods {
		if n.Pods[i].Enrolled {
			enrolled++
		}
	}
	m.pods.WithLabelValues("true").Set(float64(enrolled))
	m.pods.WithLabelValues("false").Set(float64(len(n.Pods) - enrolled))
	count := map[string]int{"bypass": 0}
	for _, c := range model.Classes() {
		count[c.String()] = 0
	}
	for i := range n.Frontends {
		if f := n.Frontends[i]; f.Redirected() {
			count[f.Class.String()]++
		} else {
			count["bypass"]++
		}
	}
	for class, c := range count {
		m.frontends.WithLabelValues(class).Set(float64(c))
	}
}

// observeState sets the gauges that follow from the published state.
func (m *metrics) observeState(s *State) {
	problems := len(s.SourceProblems)
	if s.Node != nil {
		problems += len(s.Node.Problems)
	}
	m.problems.Set(float64(problems))
	m.connected.Set(boolGauge(s.Envoy.Connected))
	m.redirecting.Set(boolGauge(s.Phase == PhaseRedirecting))
	m.inUse.Set(float64(s.Envoy.InUse))
	for _, mode := range []plan.Mode{plan.PodMode, plan.HostMode} {
		m.mode.WithLabelValues(mode.String()).Set(boolGauge(s.Mode == mode))
	}
	redirected, others := s.enrolled()
	m.redirected.WithLabelValues("true").Set(float64(redirected))
	m.redirected.WithLabelValues("false").Set(float64(others))
}

func boolGauge(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
