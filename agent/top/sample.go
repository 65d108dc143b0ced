// SPDX-License-Identifier: Apache-2.0

package top

import (
	"fmt"
	"io"
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// The families that are read.
const (
	requestsFamily    = "nodevoy_requests_total"
	durationsFamily   = "nodevoy_request_duration_seconds"
	sourcesFamily     = "nodevoy_source_requests_total"
	connectionsFamily = "nodevoy_connections_total"
	openFamily        = "nodevoy_connections_open"
)

// Port is a port of a Service.
type Port struct {
	Namespace, Service, Port string
}

// counts are what was counted of a port.
type counts struct {
	// codes are requests by status, sources by the namespace of their callers.
	codes, sources map[string]float64
	// buckets are requests by the upper bound of their duration in seconds, each with
	// those of all buckets below.
	buckets           map[float64]float64
	connections, open float64
}

// Sample is what an agent had counted at a moment.
type Sample struct {
	At    time.Time
	ports map[Port]*counts
}

// Read reads a sample from metrics in the text format of Prometheus.
func Read(from io.Reader, at time.Time) (Sample, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(from)
	if err != nil {
		return Sample{}, fmt.Errorf("read metrics: %w", err)
	}
	s := Sample{At: at, ports: map[Port]*counts{}}
	for name, use := range map[string]func(*counts, *dto.Metric){
		requestsFamily:    func(c *counts, m *dto.Metric) { c.codes[label(m, "code")] += number(m) },
		sourcesFamily:     func(c *counts, m *dto.Metric) { c.sources[label(m, "source_namespace")] += number(m) },
		connectionsFamily: func(c *counts, m *dto.Metric) { c.connections += number(m) },
		openFamily:        func(c *counts, m *dto.Metric) { c.open += number(m) },
		durationsFamily: func(c *counts, m *dto.Metric) {
			for _, b := range m.GetHistogram().GetBucket() {
				c.buckets[b.GetUpperBound()] += float64(b.GetCumulativeCount())
			}
			// The text has the bucket of all, but need not.
			c.buckets[math.Inf(1)] = max(c.buckets[math.Inf(1)], float64(m.GetHistogram().GetSampleCount()))
		},
	} {
		for _, m := range families[name].GetMetric() {
			use(s.of(Port{label(m, "namespace"), label(m, "service"), label(m, "port")}), m)
		}
	}
	return s, nil
}

func (s Sample) of(p Port) *counts {
	if s.ports[p] == nil {
		s.ports[p] = &counts{codes: map[string]float64{}, sources: map[string]float64{}, buckets: map[float64]float64{}}
	}
	return s.ports[p]
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func number(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	}
	return m.Untyped.GetValue()
}
