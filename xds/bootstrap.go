// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"bytes"
	"fmt"
	"text/template"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"sigs.k8s.io/yaml"
)

// HealthListener is the name of the listener that answers health checks, in
// Envoy's statistics too.
const HealthListener = "health"

// bootstrapTemplate is the configuration that Envoy starts with. It has two
// unix sockets, for their owner only or for a group too.
const bootstrapTemplate = `
node: {id: {{json .NodeID}}, cluster: nodevoy}
admin: {address: {pipe: {path: {{json .AdminSocket}}, mode: {{.SocketMode}}}}}
header_prefix: {{.HeaderPrefix}}

# Everything else comes from the agent. Both are on one node, so that frequent
# attempts to connect do no harm.
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services:
    - envoy_grpc:
        cluster_name: {{.AgentCluster}}
        retry_policy: {retry_back_off: {base_interval: 0.100s, max_interval: 1s}}
  lds_config: {ads: {}, resource_api_version: V3}

static_resources:
  clusters:
  - name: {{.AgentCluster}}
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        # Ends the stream to an agent that keeps it open and doesn't answer.
        explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 5s, timeout: 5s}}}
    load_assignment:
      cluster_name: {{.AgentCluster}}
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: {{json .Socket}}}}}}]}]

{{- with .Collector}}
  - {{.}}
{{- end}}

  listeners:
  # Health checks don't need the agent, and are answered by a worker thread, as
  # pods' connections are; also while Envoy drains, or has as many connections as
  # it accepts: a restart would end those.
  - name: {{.HealthListener}}
    stat_prefix: {{.HealthListener}}
    address: {pipe: {path: {{json .HealthSocket}}, mode: {{.SocketMode}}}}
    traffic_direction: INBOUND
    ignore_global_conn_limit: true
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {{.HealthListener}}
          # A client that hangs doesn't keep its connection.
          request_timeout: 10s
          request_headers_timeout: 10s
          route_config:
            name: {{.HealthListener}}
            virtual_hosts:
            - name: {{.HealthListener}}
              domains: ["*"]
              routes:
              - match: {path: /healthz}
                direct_response: {status: 200, body: {inline_string: "ok\n"}}
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}

# When a thread makes no progress, Envoy aborts, and kubelet restarts it within a
# minute. Health checks don't show that: another worker may answer them. The
# longest task of a thread, to load a large configuration, takes far less.
watchdogs: {main_thread_watchdog: {kill_timeout: 20s}, worker_watchdog: {kill_timeout: 20s}}

layered_runtime:
  layers:
  - name: nodevoy
    static_layer:
      # The body of a request that asks for an upgrade would wait for the response,
      # while the server waits for the body: docker exec does this.
      envoy.reloadable_features.http_pause_generic_upgrade_request_body: false
      # The other parser takes any first word for a method, and so lines of many
      # protocols for requests.
      envoy.reloadable_features.http_inspector_use_balsa_parser: false
  # Which flows are sent to the agent; none until it says so, which is not waited for.
  - name: {{.RuntimeName}}
    rtds_layer:
      name: {{.RuntimeName}}
      rtds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0.1s}

# The counters of a cluster take memory only once it is used.
deferred_stat_options: {enable_deferred_creation_stats: true}

# How long requests take is counted between 1 ms and 10 s. What has counted nothing for an
# hour or two is forgotten: Services come and go.
stats_config:
  histogram_bucket_settings:
  - match: {prefix: {{.StatPrefix}}.{{.StatDuration}}}
    buckets: [1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000]
stats_eviction_interval: 3600s

# What a burst left free goes back to the node within about five minutes, as the
# allocator expects the next one so long; at once where it would exceed the bound.
memory_allocator_manager: {bytes_to_release: 67108864, memory_release_interval: 1s{{if .MaxHeap}}, soft_memory_limit_bytes: {{.MaxHeap}}{{end}}}

# Above these limits, Envoy leaves new connections in the kernel, where they wait.
# The agent's probes are among them, so that redirection ends.
overload_manager:
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: "{{.MaxConnections}}"
{{- if .MaxHeap}}
  - name: envoy.resource_monitors.fixed_heap
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig
      max_heap_size_bytes: "{{.MaxHeap}}"
  # What a burst adds until the next reading has to fit above the last threshold.
  refresh_interval: 0.020s
  # What holds 64 KiB or more of bodies is known, so that it can be ended first.
  buffer_factory_config: {minimum_account_to_track_power_of_two: 16}
  actions:
  # Ends the requests with the most memory, the more of them the fuller the heap.
  - name: envoy.overload_actions.reset_high_memory_stream
    triggers: [{name: envoy.resource_monitors.fixed_heap, scaled: {scaling_threshold: 0.75, saturation_threshold: 0.95}}]
  # Clients come back on new connections, which the agent then leaves to kube-proxy.
  - name: envoy.overload_actions.disable_http_keepalive
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.85}}]
  - name: envoy.overload_actions.stop_accepting_connections
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.9}}]
  - name: envoy.overload_actions.stop_accepting_requests
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.95}}]
  # Headers belong to no request that could be ended before they are complete: ends
  # connections that send more of them, the more of them the fuller the heap.
  loadshed_points:
  - name: envoy.load_shed_points.http1_server_abort_dispatch
    triggers: [{name: envoy.resource_monitors.fixed_heap, scaled: {scaling_threshold: 0.95, saturation_threshold: 0.99}}]
  - name: envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch
    triggers: [{name: envoy.resource_monitors.fixed_heap, scaled: {scaling_threshold: 0.95, saturation_threshold: 0.99}}]
{{- end}}
`

// Bootstrap is the configuration that Envoy starts with, as YAML with sorted
// keys. Only the node's name differs between nodes.
func Bootstrap(cfg Config) ([]byte, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("render bootstrap: %w", err)
	}
	// As protobuf writes a string: text that is not UTF-8 is an error.
	json := func(text string) (string, error) {
		out, err := protojson.Marshal(wrapperspb.String(text))
		return string(out), err
	}
	var out bytes.Buffer
	t := template.Must(template.New("bootstrap").Funcs(template.FuncMap{"json": json}).Parse(bootstrapTemplate))
	mode := "0600"
	if cfg.Group != 0 {
		// Envoy's own group is this one.
		mode = "0660"
	}
	collector, err := collector(cfg.OTLPEndpoint)
	if err != nil {
		return nil, fmt.Errorf("render bootstrap: %w", err)
	}
	err = t.Execute(&out, struct {
		Config
		HeaderPrefix, HealthListener, SocketMode, RuntimeName, AgentCluster, Collector, StatPrefix, StatDuration string
	}{cfg, envoyPrefix, HealthListener, mode, RuntimeName, agentCluster, collector, StatPrefix, StatDuration})
	if err != nil {
		return nil, fmt.Errorf("render bootstrap: %w", err)
	}
	var sorted any
	if err := yaml.Unmarshal(out.Bytes(), &sorted); err != nil {
		return nil, fmt.Errorf("render bootstrap: %w", err)
	}
	return yaml.Marshal(sorted)
}
