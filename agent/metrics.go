// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/nodevoy/nodevoy/agent/envoyadmin"
	"github.com/nodevoy/nodevoy/agent/envoystats"
	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// metrics are what the loop counts; all others are computed from its state when
// they are scraped: a loop that hangs sets no gauge. Label values come from closed
// sets only: no pod, address or Service is ever one.
type metrics struct {
	duration                      *prometheus.HistogramVec
	failures, nacks               *prometheus.CounterVec
	lastSuccess                   *prometheus.GaugeVec
	drift, stopped, probeFailures prometheus.Counter
	evicted                       prometheus.Counter
}

// newMetrics registers the agent's metrics with reg. state is where the loop
// publishes.
func newMetrics(reg prometheus.Registerer, state *atomic.Pointer[State]) *metrics {
	reg.MustRegister(newStateCollector(state))
	f := promauto.With(reg)
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "nodevoy", Name: name, Help: help}
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts(opts(name, help)))
	}
	m := &metrics{
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "nodevoy", Name: "stage_duration_seconds", Help: "Time a stage of a round took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}, []string{"stage"}),
		failures: f.NewCounterVec(prometheus.CounterOpts(
			opts("stage_failures_total", "Times a stage of a round failed.")), []string{"stage"}),
		lastSuccess: f.NewGaugeVec(prometheus.GaugeOpts(
			opts("stage_last_success_timestamp_seconds", "When a stage last succeeded, in Unix time.")), []string{"stage"}),
		nacks: f.NewCounterVec(prometheus.CounterOpts(
			opts("xds_nacks_total", "Responses that Envoy refused, by resource type.")), []string{"type"}),
		drift: counter("drift_repaired_total",
			"Foreign edits of nodevoy's own rules, sets and routes that were found and mended."),
		stopped: counter("redirection_stopped_total",
			"Times redirection was stopped because Envoy went away or did not answer."),
		evicted: counter("frontends_evicted_total",
			"Frontends in use that were left to kube-proxy because Envoy's memory for Services in use was short."),
		probeFailures: counter("envoy_probe_failures_total",
			"Requests through Envoy's own listener that got no answer."),
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

// gauge is a metric that is computed when it is scraped; label is empty if it has
// none.
func gauge(name, help, label string) func(out chan<- prometheus.Metric, value float64, labels ...string) {
	var names []string
	if label != "" {
		names = append(names, label)
	}
	desc := prometheus.NewDesc("nodevoy_"+name, help, names, nil)
	return func(out chan<- prometheus.Metric, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
}

// newStateCollector exports what follows from the last state.
func newStateCollector(state *atomic.Pointer[State]) prometheus.Collector {
	pending := gauge("pending_changes_seconds", "Age of the oldest change that is not in Envoy and the kernel yet; "+
		"0 when there is none. While the loop does not move, at least the time since it did.", "")
	connected := gauge("envoy_connected", "1 while an Envoy holds the configuration stream.", "")
	redirecting := gauge("redirecting", "1 while enrolled pods' connections are redirected.", "")
	inUse := gauge("frontends_in_use", "Frontends that Envoy has asked for.", "")
	memory := gauge("cluster_memory_bytes", "Estimate of what Services in use take of Envoy's memory.", "")
	limit := gauge("cluster_memory_limit_bytes", "What they may take; 0 for no limit.", "")
	problems := gauge("object_problems", "Kubernetes objects, or fields of them, that could not be used as written.", "")
	mode := gauge("redirect_mode", "1 for the mode of redirection: pod or host.", "mode")
	redirected := gauge("enrolled_pods",
		"Enrolled pods of this node, by whether their new connections go to Envoy.", "redirected")
	pods := gauge("pods", "Pods on this node, by whether they are enrolled.", "enrolled")
	frontends := gauge("frontends",
		"Addresses of Service ports, by capture class; bypass are those left to kube-proxy.", "class")
	return prometheus.CollectorFunc(func(out chan<- prometheus.Metric) {
		s := state.Load()
		if s == nil {
			s = &State{At: time.Now()}
		}
		pending(out, s.pending(time.Now()).Seconds())
		connected(out, boolGauge(s.Envoy.Connected))
		redirecting(out, boolGauge(s.Phase == PhaseRedirecting))
		inUse(out, float64(s.Envoy.InUse))
		memory(out, float64(s.Envoy.Memory))
		limit(out, float64(s.MemoryLimit))
		problems(out, float64(len(s.problems())))
		for _, m := range []plan.Mode{plan.PodMode, plan.HostMode} {
			mode(out, boolGauge(s.Mode == m), m.String())
		}
		yes, no := s.enrolled()
		redirected(out, float64(yes), "true")
		redirected(out, float64(no), "false")
		if s.Node == nil {
			return
		}
		pods(out, float64(yes+no), "true")
		pods(out, float64(len(s.Node.Pods)-yes-no), "false")
		for class, n := range s.countFrontends() {
			frontends(out, float64(n), class)
		}
	})
}

// countFrontends counts by capture class, and "bypass" those left to kube-proxy,
// because of what they are or because Envoy refuses them.
func (s *State) countFrontends() map[string]int {
	count := map[string]int{"bypass": 0}
	for _, c := range model.Classes() {
		count[c.String()] = 0
	}
	used := s.usedIfShort()
	for _, f := range s.Node.Frontends {
		if f.Redirected() && s.short(f, used) == "" && s.Envoy.Refused.Frontend(f) == "" {
			count[f.Class.String()]++
		} else {
			count["bypass"]++
		}
	}
	return count
}

// newWatchCollector exports how the reading of each kind of Kubernetes objects goes.
func newWatchCollector(health func() []kinds.Health) prometheus.Collector {
	failing := gauge("watch_failing",
		"1 while objects of this kind can't be read or followed; what was read before stays in force.", "kind")
	synced := gauge("watch_synced", "1 once every object of this kind has been read.", "kind")
	return prometheus.CollectorFunc(func(out chan<- prometheus.Metric) {
		for _, h := range health() {
			failing(out, boolGauge(h.Err != nil), h.Kind)
			synced(out, boolGauge(h.Synced), h.Kind)
		}
	})
}

// envoyMetrics gathers what Envoy counts, as metrics of nodevoy.
func (a *Agent) envoyMetrics() prometheus.Gatherer {
	return envoystats.Gatherer{
		Ask: func(ctx context.Context, path string) (string, error) {
			text, err := a.envoy.Get(ctx, path)
			if envoyadmin.Absent(err) {
				err = errors.Join(envoystats.ErrAbsent, err)
			}
			return text, err
		},
		Zone: func() string {
			if s := a.state.Load(); s != nil && s.Node != nil {
				return s.Node.Zone
			}
			return ""
		},
	}
}

func boolGauge(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
