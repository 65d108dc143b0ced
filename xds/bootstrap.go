// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	// reconnectBase and reconnectMax pace Envoy's attempts to reach the agent:
	// both are on one node, so there is no crowd to hold back.
	reconnectBase, reconnectMax = 100 * time.Millisecond, time.Second
	// pingInterval and pingTimeout bound how long Envoy holds on to an agent
	// that has the socket open and says nothing.
	pingInterval, pingTimeout = 5 * time.Second, 5 * time.Second
	// ownerOnly is the mode of the admin socket.
	ownerOnly = 0o600
	// maxConnections is how many client connections Envoy takes at a time.
	maxConnections = 500_000
	// shrinkAt and refuseAt are the shares of the heap's bound from where Envoy
	// gives back memory it holds, and takes no connections any more.
	shrinkAt, refuseAt = 0.9, 0.97
	// heapInterval is how often Envoy looks at its heap.
	heapInterval = 250 * time.Millisecond
)

// Bootstrap is the configuration Envoy starts with, as YAML: where the agent
// is, from which nearly everything else comes, and where health checks are
// answered. Only the node's name differs between nodes.
func Bootstrap(cfg Config) ([]byte, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("render bootstrap: %w", err)
	}
	return toYAML(bootstrap(cfg))
}

func bootstrap(cfg Config) *bootstrapv3.Bootstrap {
	return &bootstrapv3.Bootstrap{
		Node:         &corev3.Node{Id: cfg.NodeID, Cluster: nodeCluster},
		Admin:        &bootstrapv3.Admin{Address: pipe(cfg.AdminSocket, ownerOnly)},
		HeaderPrefix: envoyPrefix,
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: adsConfig(),
			LdsConfig: ads(),
		},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Clusters:  []*clusterv3.Cluster{agentCluster(cfg)},
			Listeners: []*listenerv3.Listener{healthListener(cfg)},
		},
		Watchdogs:       watchdogs(),
		LayeredRuntime:  runtime(),
		OverloadManager: overload(cfg),
		// A cluster's hundreds of counters take memory only once it is used.
		DeferredStatOptions: &bootstrapv3.Bootstrap_DeferredStatOptions{EnableDeferredCreationStats: true},
	}
}

// overload bounds the connections that Envoy takes, so that it runs out of
// nothing first: each has two sockets, of the million a process may usually
// have. It also bounds the heap, if so configured. Envoy then leaves new
// connections in the kernel, where they wait; the agent's own are among them,
// so that those after them are not redirected.
func overload(cfg Config) *overloadv3.OverloadManager {
	out := &overloadv3.OverloadManager{ResourceMonitors: []*overloadv3.ResourceMonitor{
		monitor("envoy.resource_monitors.global_downstream_max_connections", pack(&connectionsv3.DownstreamConnectionsConfig{
			MaxActiveDownstreamConnections: maxConnections,
		})),
	}}
	if cfg.MaxHeap == 0 {
		return out
	}
	out.RefreshInterval = durationpb.New(heapInterval)
	out.ResourceMonitors = append(out.ResourceMonitors, monitor(heapMonitor, pack(&heapv3.FixedHeapConfig{MaxHeapSizeBytes: cfg.MaxHeap})))
	out.Actions = []*overloadv3.OverloadAction{
		heapAction("envoy.overload_actions.shrink_heap", shrinkAt),
		heapAction("envoy.overload_actions.stop_accepting_connections", refuseAt),
	}
	return out
}

// heapMonitor is the name of what watches the heap.
const heapMonitor = "envoy.resource_monitors.fixed_heap"

func monitor(name string, config *anypb.Any) *overloadv3.ResourceMonitor {
	return &overloadv3.ResourceMonitor{Name: name, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: config}}
}

// heapAction is taken from this share of the heap's bound.
func heapAction(name string, share float64) *overloadv3.OverloadAction {
	return &overloadv3.OverloadAction{Name: name, Triggers: []*overloadv3.Trigger{{
		Name:         heapMonitor,
		TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: share}},
	}}}
}

// runtime turns off what Envoy would do to all traffic and no other setting
// reaches.
func runtime() *bootstrapv3.LayeredRuntime {
	flags := &structpb.Struct{Fields: map[string]*structpb.Value{
		// The body of a request that asks for an upgrade would wait for the
		// answer, while the server waits for the body: docker exec does this.
		"envoy.reloadable_features.http_pause_generic_upgrade_request_body": structpb.NewBoolValue(false),
	}}
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name:           "nodevoy",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: flags},
	}}}
}

func adsConfig() *corev3.ApiConfigSource {
	return &corev3.ApiConfigSource{
		ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
		TransportApiVersion:       corev3.ApiVersion_V3,
		SetNodeOnFirstMessageOnly: true,
		GrpcServices: []*corev3.GrpcService{{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
				ClusterName: bootstrapCluster,
				RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
					BaseInterval: durationpb.New(reconnectBase),
					MaxInterval:  durationpb.New(reconnectMax),
				}},
			}},
		}},
	}
}

func agentCluster(cfg Config) *clusterv3.Cluster {
	http2 := &upstreamv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: &corev3.KeepaliveSettings{
						Interval: durationpb.New(pingInterval),
						Timeout:  durationpb.New(pingTimeout),
					}},
				},
			},
		},
	}
	return &clusterv3.Cluster{
		Name:                          bootstrapCluster,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:                durationpb.New(time.Second),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{protocolOptions: pack(http2)},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: bootstrapCluster,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: pipe(cfg.Socket, 0)}},
			}}}},
		},
	}
}
