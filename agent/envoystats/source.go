// SPDX-License-Identifier: Apache-2.0

package envoystats

import (
	"cmp"
	"regexp"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"github.com/nodevoy/nodevoy/xds"
)

// source is a family of Envoy's, and which labels of ours its metrics have.
type source struct {
	// pattern matches Envoy's own names of it, family is its name for Prometheus.
	pattern, family string
	// id is the label that says what the metric is about.
	id     string
	labels []labelFunc
	// counts says whether a metric adds to ours; nil for all.
	counts func(m metric) bool
}

// metric is one of Envoy's, and the zone of this node.
type metric struct {
	labels map[string]string
	id     string
	zone   string
}

// labelFunc makes some label values of ours; false for a metric that isn't about pods.
type labelFunc func(m metric) ([]string, bool)

func (s source) by(labels ...labelFunc) source {
	s.labels = labels
	return s
}

// onlyIf adds only such metrics, and 0 for others.
func (s source) onlyIf(counts func(m metric) bool) source {
	s.counts = counts
	return s
}

// metric is one of Envoy's, with these labels, on a node in this zone.
func (s source) metric(labels []*dto.LabelPair, zone string) metric {
	m := metric{labels: map[string]string{}, zone: zone}
	for _, l := range labels {
		m.labels[l.GetName()] = l.GetValue()
	}
	m.id = m.labels[s.id]
	return m
}

// values are the values of our labels, false for a metric that is left out.
func (s source) values(m metric) ([]string, bool) {
	var out []string
	for _, f := range s.labels {
		values, ok := f(m)
		if !ok {
			return nil, false
		}
		out = append(out, values...)
	}
	return out, true
}

// requestStat is one of xds's own statistics of requests.
func requestStat(name string) source {
	return source{pattern: regexp.QuoteMeta(xds.StatPrefix+"."+name) + `\..*`, family: family(xds.StatPrefix, name), id: xds.TagPort}
}

// cluster is a statistic of each cluster. All clusters of a Service port have one name
// in statistics, so that Envoy itself adds them up.
func cluster(stat string) source {
	return source{pattern: `cluster\..*\.` + regexp.QuoteMeta(stat), family: family("cluster", stat), id: "envoy_cluster_name"}
}

func listener(stat string) source { return ofClass("listener", stat, "envoy_listener_address") }

func httpManager(stat string) source { return ofClass("http", stat, "envoy_http_conn_manager_prefix") }

func tcpProxy(stat string) source { return ofClass("tcp", stat, "envoy_tcp_prefix") }

func connectionLimit(stat string) source {
	return ofClass("connection_limit", stat, "envoy_connection_limit_prefix")
}

// ofClass is a statistic of what is named after a capture class.
func ofClass(group, stat, id string) source {
	return source{pattern: group + `\.[^.]+\.` + regexp.QuoteMeta(stat), family: family(group, stat), id: id}
}

// plain is a statistic of Envoy as a whole.
func plain(group, stat string) source {
	return source{pattern: regexp.QuoteMeta(group + "." + stat), family: family(group, stat)}
}

// family is the name that Envoy gives a family for Prometheus.
func family(group, stat string) string {
	return "envoy_" + group + "_" + strings.NewReplacer(".", "_").Replace(stat)
}

// portOf splits a Service port; what has none is a cluster of nodevoy's own.
func portOf(m metric) ([]string, bool) {
	parts := strings.Split(m.id, "/")
	return parts, len(parts) == 3
}

// unrouted is for requests without a Service port.
func unrouted(m metric) ([]string, bool) { return nil, m.id == "" }

// classOf is the capture class of a listener, which in host mode has one for each family
// of addresses. Other listeners are not for pods.
func classOf(m metric) ([]string, bool) {
	class := strings.TrimSuffix(strings.TrimSuffix(m.id, "-v4"), "-v6")
	switch class {
	case "http", "tcp", "detect":
		return []string{class}, true
	}
	return nil, false
}

// tag is a tag of xds's own statistics, which Envoy leaves empty if it knows no value.
func tag(name string) labelFunc {
	return func(m metric) ([]string, bool) {
		value, ok := m.labels[name]
		return []string{cmp.Or(value, "unknown")}, ok
	}
}

func always(value string) labelFunc {
	return func(metric) ([]string, bool) { return []string{value}, true }
}

// otherZone says whether a backend is known to be in another zone than this node.
func otherZone(m metric) bool {
	zone := m.labels[xds.TagZone]
	return zone != "" && m.zone != "" && zone != m.zone
}
