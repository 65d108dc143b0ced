// SPDX-License-Identifier: Apache-2.0

package envoystats

import (
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"github.com/nodevoy/nodevoy/xds"
)

// Family is a metric family: what it is called, what it says, and what it is for.
type Family struct {
	Name   string
	Type   dto.MetricType
	Labels []string
	// Help is what a value says, Use what one does with it.
	Help, Use string
}

// row is a family and what it is made of.
type row struct {
	Family
	from []source
	// unit is what Envoy's values are divided by; 0 for 1.
	unit float64
}

// SeriesPerPort is how many series a Service port has at most, besides one for each
// namespace that calls it. Most have 26: a server answers few codes.
const SeriesPerPort = 49

// Families are those of this package, in the order of their names.
func Families() []Family {
	out := []Family{scraped()}
	for _, r := range table() {
		out = append(out, r.Family)
	}
	slices.SortFunc(out, func(a, b Family) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// servicePort are the labels of families that are about a Service port.
func servicePort(more ...string) []string {
	return append([]string{"namespace", "service", "port"}, more...)
}

const (
	counter   = dto.MetricType_COUNTER
	gauge     = dto.MetricType_GAUGE
	histogram = dto.MetricType_HISTOGRAM
)

// table is all that this package knows of families.
func table() []row { return slices.Concat(requestRows(), serviceRows(), classRows(), envoyRows()) }

func requestRows() []row {
	requests := requestStat(xds.StatRequests)
	return []row{
		{
			Family{
				"nodevoy_requests_total", counter, servicePort("code"),
				"HTTP requests that were answered or given up. A code that is rare is counted by its class, as 4xx; 0 is for no answer.",
				"Rate, and share of errors, of each Service port.",
			},
			[]source{requests.by(portOf, tag(xds.TagCode))},
			0,
		},
		{
			Family{
				"nodevoy_request_duration_seconds", histogram, servicePort(),
				"Time from a request's first byte to its answer's last, as Envoy sees it.",
				"Latency of each Service port, by histogram_quantile.",
			},
			[]source{requestStat(xds.StatDuration).by(portOf)},
			1e6,
		},
		{
			Family{
				"nodevoy_source_requests_total", counter, servicePort("source_namespace"),
				"The same requests by the namespace of the pods that sent them. Only in pod mode.",
				"Who calls a Service.",
			},
			[]source{requests.by(portOf, tag(xds.TagSource))},
			0,
		},
		{
			Family{
				"nodevoy_cross_zone_requests_total", counter, servicePort(),
				"Those of the same requests whose backend is in another zone than this node; 0 where zones are not known.",
				"Traffic between zones, which clouds charge for.",
			},
			[]source{requests.onlyIf(otherZone).by(portOf)},
			0,
		},
		{
			Family{
				"nodevoy_unrouted_requests_total", counter,
				[]string{"code"},
				"HTTP requests that Envoy answered itself before it had their Service: 400 for what is not valid HTTP, 503 if the Service's configuration did not come in time.",
				"Ports that are named as HTTP and are something else.",
			},
			[]source{requests.by(unrouted, tag(xds.TagCode))},
			0,
		},
		{
			Family{
				"nodevoy_node_connect_failures_total", counter,
				[]string{"backend_node"},
				"Backends that did not take a connection, by the node they are on: each attempt for an HTTP request, the last attempt for any other connection.",
				"Tells a node that can't be reached from a Service that is down.",
			},
			[]source{requestStat(xds.StatUnconnected).by(tag(xds.TagNode))},
			0,
		},
	}
}

func serviceRows() []row {
	port := func(name string, t dto.MetricType, stat, help, use string) row {
		return row{Family{name, t, servicePort(), help, use}, []source{cluster(stat).by(portOf)}, 0}
	}
	return []row{
		port("nodevoy_connections_total", counter, "upstream_cx_total",
			"Connections that Envoy began to make to backends.", "Rate of new connections, of TCP Services too."),
		port("nodevoy_connections_open", gauge, "upstream_cx_active",
			"Connections to backends that are open.", "Load of Services that are not HTTP, and leaks of connections."),
		port("nodevoy_connect_failures_total", counter, "upstream_cx_connect_fail",
			"Connections to backends that were refused, reset or not made in time.", "Backends that can't be reached, even if another took the call."),
		port("nodevoy_retries_total", counter, "upstream_rq_retry",
			"Attempts to send an HTTP request to another backend, after one that can't have reached a server.", "Failures that callers don't see yet."),
		port("nodevoy_sent_bytes_total", counter, "upstream_cx_tx_bytes_total",
			"Bytes sent to backends.", "Traffic of each Service port."),
		port("nodevoy_received_bytes_total", counter, "upstream_cx_rx_bytes_total",
			"Bytes received from backends.", "Traffic of each Service port."),
	}
}

func classRows() []row {
	class := func(name string, t dto.MetricType, help, use string, from ...source) row {
		for i, s := range from {
			from[i] = s.by(classOf)
		}
		return row{Family{name, t, []string{"class"}, help, use}, from, 0}
	}
	return []row{
		class("nodevoy_pod_connections_total", counter, "Connections of pods that were taken, by capture class.",
			"Rate of connections that are redirected.", httpManager("downstream_cx_total"), tcpProxy("downstream_cx_total")),
		class("nodevoy_pod_connections_open", gauge, "Connections of pods that are open, by capture class. Includes the agent's probes.",
			"Load of Envoy, and what waits to end before an update.", listener("downstream_cx_active")),
		class("nodevoy_pod_connections_refused_total", counter, "Connections of pods that were closed because the pod, or the node, has too many.",
			"Pods at their limit.", connectionLimit("limited_connections"), listener("downstream_global_cx_overflow"), listener("downstream_cx_overload_reject")),
		class("nodevoy_discovery_failures_total", counter, "Requests and connections that got no configuration of their Service in time.",
			"An agent that is down or too slow while pods call Services that are new to the node.",
			httpManager("no_cluster"), tcpProxy("on_demand_cluster_missing"), tcpProxy("on_demand_cluster_timeout")),
		{
			Family{
				"nodevoy_detections_total", counter,
				[]string{"result"},
				"Connections whose protocol was detected: http, tls, other for bytes of anything else, timeout if the client sent none in time.",
				"Ports that should declare their protocol: each timeout is a delay.",
			},
			[]source{
				plain("http_inspector", "http10_found").by(always("http")), plain("http_inspector", "http11_found").by(always("http")),
				plain("http_inspector", "http2_found").by(always("http")), plain("tls_inspector", "tls_found").by(always("tls")),
				plain("http_inspector", "http_not_found").by(always("other")), listener("downstream_pre_cx_timeout").by(always("timeout")),
			},
			0,
		},
	}
}

func envoyRows() []row {
	one := func(name string, t dto.MetricType, unit float64, from source, help, use string) row {
		return row{Family{name, t, nil, help, use}, []source{from.by()}, unit}
	}
	server := func(stat string) source { return plain("server", stat) }
	action := func(name string) source {
		return plain("overload", "envoy.overload_actions."+name+".active").by(always(name))
	}
	return []row{
		one("nodevoy_discovery_loads_total", counter, 0, plain("cluster_manager", "cluster_added"),
			"Configurations of Services that Envoy has loaded, and one of the agent itself.", "How often pods call Services that are new to the node."),
		one("nodevoy_envoy_uptime_seconds", gauge, 0, server("uptime"),
			"Time since Envoy started.", "Restarts of Envoy."),
		one("nodevoy_envoy_memory_bytes", gauge, 0, server("memory_allocated"),
			"Memory that Envoy uses, without what its allocator holds.", "Growth of Envoy."),
		one("nodevoy_envoy_heap_bytes", gauge, 0, server("memory_heap_size"),
			"Memory that Envoy's allocator has from the system.", "Size of the container's memory limit."),
		one("nodevoy_envoy_heap_pressure_ratio", gauge, 100, plain("overload", "envoy.resource_monitors.fixed_heap.pressure"),
			"Part of Envoy's heap bound in use; absent without a bound.", "At 0.75 Envoy begins to end requests."),
		one("nodevoy_envoy_connections_pressure_ratio", gauge, 100, plain("overload", "envoy.resource_monitors.global_downstream_max_connections.pressure"),
			"Part of the connections that Envoy accepts from all pods.", "At 1 no connection is accepted, and redirection ends."),
		one("nodevoy_envoy_watchdog_misses_total", counter, 0, plain("workers", "watchdog_miss"),
			"Times a worker thread of Envoy made no progress for longer than expected.", "An Envoy that lacks processor time."),
		one("nodevoy_envoy_metrics_dropped_total", counter, 0, server("stats_overflow.counter"),
			"Counts of requests that were lost because Envoy has as many series of them as it may.", "Counts that can't be relied on."),
		{
			Family{
				"nodevoy_envoy_overload_active", gauge,
				[]string{"action"},
				"1 while Envoy defends its memory in this way; absent without a heap bound.", "Calls that fail for want of memory.",
			},
			[]source{
				action("reset_high_memory_stream"), action("disable_http_keepalive"),
				action("stop_accepting_connections"), action("stop_accepting_requests"),
			},
			0,
		},
	}
}
