// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nodevoy/nodevoy/agent/kinds"
)

// watchCollector exports how the reading of Kubernetes objects goes, as it is
// when asked. Its label comes from the table of kinds.
type watchCollector struct {
	health          func() []kinds.Health
	failing, synced *prometheus.Desc
}

func newWatchCollector(health func() []kinds.Health) *watchCollector {
	return &watchCollector{
		health: health,
		failing: prometheus.NewDesc("nodevoy_watch_failing",
			"1 while objects of this kind can't be read or followed; what was read before stays in force.", []string{"kind"}, nil),
		synced: prometheus.NewDesc("nodevoy_watch_synced",
			"1 once every object of this kind has been read.", []string{"kind"}, nil),
	}
}

// Describe is of prometheus.Collector.
func (c *watchCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.failing
	descs <- c.synced
}

// Collect is of prometheus.Collector.
func (c *watchCollector) Collect(metrics chan<- prometheus.Metric) {
	for _, h := range c.health() {
		metrics <- prometheus.MustNewConstMetric(c.failing, prometheus.GaugeValue, boolGauge(h.Err != nil), h.Kind)
		metrics <- prometheus.MustNewConstMetric(c.synced, prometheus.GaugeValue, boolGauge(h.Synced), h.Kind)
	}
}
