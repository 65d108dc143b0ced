// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// otlpCluster is the bootstrap configuration's cluster of the collector.
	otlpCluster = "otlp"
	// otlpTimeout is how long Envoy waits for the collector's answer before it drops what
	// it sent, and otlpConnect for a connection to it.
	otlpTimeout, otlpConnect = 10 * time.Second, 5 * time.Second
	// otlpRequests is how many requests to the collector may wait at a time; what else is
	// to be sent meanwhile is dropped. A request has up to otlpBuffer bytes of logs.
	otlpRequests, otlpBuffer = 128, 16384
	// otlpFlush is how long each worker collects logs before it sends.
	otlpFlush = time.Second
)

// splitEndpoint splits host:port, where the host is an address or a name; false for what
// is neither.
func splitEndpoint(text string) (host string, isName bool, port uint16, ok bool) {
	if a, err := netip.ParseAddrPort(text); err == nil {
		return a.Addr().String(), false, a.Port(), a.Port() != 0 && a.Addr().Zone() == ""
	}
	const longest, letters = 253, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	host, number, _ := strings.Cut(text, ":")
	n, err := strconv.ParseUint(number, 10, 16)
	ok = err == nil && n != 0 && host != "" && len(host) <= longest && strings.Trim(host, letters) == ""
	return host, true, uint16(n), ok
}

// collector is the cluster of the collector, as YAML for the bootstrap configuration; an
// empty text if there is none. Envoy calls it from the node's network. It starts without
// an answer of DNS, and what it can't send it drops.
func collector(endpoint string) (string, error) {
	if endpoint == "" {
		return "", nil
	}
	host, isName, port, ok := splitEndpoint(endpoint)
	if !ok {
		return "", fmt.Errorf("OTLP endpoint %q: want HOST:PORT", endpoint)
	}
	c := &clusterv3.Cluster{
		Name:                 otlpCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS},
		DnsLookupFamily:      clusterv3.Cluster_V4_PREFERRED,
		WaitForWarmOnInit:    wrapperspb.Bool(false),
		ConnectTimeout:       durationpb.New(otlpConnect),
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxRequests: wrapperspb.UInt32(otlpRequests), MaxPendingRequests: wrapperspb.UInt32(otlpRequests),
		}}},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(&upstreamv3.HttpProtocolOptions{
				UpstreamProtocolOptions: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
					ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
						// Finds a collector that vanished.
						ConnectionKeepalive: &corev3.KeepaliveSettings{
							Interval: durationpb.New(30 * time.Second), Timeout: durationpb.New(otlpTimeout),
						},
					}},
				}},
			}),
		},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: otlpCluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
				Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
				}}},
			}}}},
		}}},
	}
	if !isName {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		c.DnsLookupFamily, c.WaitForWarmOnInit = clusterv3.Cluster_AUTO, nil
	}
	out, err := protojson.Marshal(c)
	return string(out), err
}

// collectorService is how Envoy calls the collector.
func collectorService() *corev3.GrpcService {
	return &corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: otlpCluster}},
		Timeout:         durationpb.New(otlpTimeout),
	}
}

// serviceName is the service that a listener's spans and logs are of: in pod mode the
// workload whose calls they are.
func serviceName(cfg Config, spec ListenerSpec) string {
	if cfg.PodMode && spec.Target.Workload != "" {
		return utf8(spec.Target.Workload)
	}
	return "nodevoy"
}

// resource is what else the spans and logs of a listener are of.
func resource(cfg Config, spec ListenerSpec) map[string]string {
	out := map[string]string{"k8s.node.name": utf8(cfg.NodeID)}
	if cfg.PodMode {
		out["k8s.namespace.name"], out["k8s.pod.name"] = utf8(spec.Target.Namespace), utf8(spec.Target.Pod)
		out["k8s.pod.uid"] = utf8(spec.Target.UID)
	}
	return out
}

// otlpLog is an access log of records of OTLP: its attributes are the columns by name,
// but for those that are never known, and its body is the line of text.
func otlpLog(cfg Config, spec ListenerSpec, columns []column) *otelv3.OpenTelemetryAccessLogConfig {
	attributes := &commonv1.KeyValueList{}
	for _, c := range columns {
		if c.format != "" && c.format != "-" {
			attributes.Values = append(attributes.Values, keyValue(c.name, c.format))
		}
	}
	about := resource(cfg, spec)
	about["service.name"] = serviceName(cfg, spec)
	of := &commonv1.KeyValueList{}
	for _, key := range sortedKeys(about) {
		of.Values = append(of.Values, keyValue(key, about[key]))
	}
	return &otelv3.OpenTelemetryAccessLogConfig{
		GrpcService: collectorService(), LogName: "nodevoy", DisableBuiltinLabels: true, ResourceAttributes: of,
		Body:       &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: textLine(columns)}},
		Attributes: attributes, StatPrefix: "nodevoy",
		BufferFlushInterval: durationpb.New(otlpFlush), BufferSizeBytes: wrapperspb.UInt32(otlpBuffer),
	}
}

func keyValue(key, value string) *commonv1.KeyValue {
	return &commonv1.KeyValue{Key: key, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: value}}}
}
