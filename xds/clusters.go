// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	selectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/local_address_selectors/filter_state_override/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/nodevoy/nodevoy/agent/model"
)

// endpointsTimeout bounds how long a changed cluster waits for its endpoints,
// while those before stay in use. It is above the discovery timeout: a new
// cluster would start without endpoints, and answer 503.
const endpointsTimeout = 5 * time.Second

// clusterInputs are what a cluster is made of. It does not depend on which
// backends there are.
type clusterInputs struct {
	name clusterName
	port model.ServicePort
}

func (in clusterInputs) Equal(other Inputs) bool { return in == other }

// Message makes the cluster: how Envoy connects to the backends of a frontend.
func (in clusterInputs) Message(cfg Config) proto.Message {
	endpoints := ads()
	endpoints.InitialFetchTimeout = durationpb.New(endpointsTimeout)
	c := &clusterv3.Cluster{
		Name:                 in.name.String(),
		AltStatName:          utf8(in.port.String()),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: endpoints},
		ConnectTimeout:       durationpb.New(cfg.ConnectTimeout),
		LbPolicy:             clusterv3.Cluster_ROUND_ROBIN,

		// Of HTTP/1, as without Envoy: no request meets a connection that its server is
		// closing, unless its client's is as old. Of HTTP/2, where servers announce it, a
		// pod could make Envoy open one for each of its requests at a time and backends.
		ConnectionPoolPerDownstreamConnection: in.name.form != formHTTP2,

		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferSize),

		PerConnectionBufferHighWatermarkTimeout: durationpb.New(cfg.StallTimeout),

		CircuitBreakers:           noLimits(),
		UpstreamBindConfig:        bind(cfg),
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: remoteKeepalive()},
	}
	if in.name.form.http() {
		c.TypedExtensionProtocolOptions = map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(upstreamHTTP(cfg, in.name.form)),
		}
	}
	return c
}

// noLimits lifts Envoy's default limits of 1024 connections and requests, which
// the application doesn't have without Envoy.
func noLimits() *clusterv3.CircuitBreakers {
	var out []*clusterv3.CircuitBreakers_Thresholds
	for _, priority := range []corev3.RoutingPriority{corev3.RoutingPriority_DEFAULT, corev3.RoutingPriority_HIGH} {
		out = append(out, &clusterv3.CircuitBreakers_Thresholds{
			Priority:           priority,
			MaxConnections:     wrapperspb.UInt32(math.MaxUint32),
			MaxPendingRequests: wrapperspb.UInt32(math.MaxUint32),
			MaxRequests:        wrapperspb.UInt32(math.MaxUint32),
			MaxRetries:         wrapperspb.UInt32(math.MaxUint32),
		})
	}
	return &clusterv3.CircuitBreakers{Thresholds: out}
}

// upstreamHTTP uses the version towards the server that the client uses towards Envoy;
// HTTP/1.1 for HTTP/1.0.
func upstreamHTTP(cfg Config, as form) *upstreamv3.HttpProtocolOptions {
	explicit := &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{}
	if as == formHTTP2 {
		explicit.ProtocolConfig = &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: http2Options(math.MaxInt32, remoteWindow, remoteConnectionWindow, maxResponseHeadersKiB),
		}
	} else {
		http1 := http1Options()
		http1.SendFullyQualifiedUrl = as.absolute()
		// Clients read by chunks what has a length, too. Of requests, that is refused.
		http1.AllowChunkedLength = true
		explicit.ProtocolConfig = &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: http1}
	}
	common := commonOptions(durationpb.New(cfg.UpstreamIdle))
	common.MaxResponseHeadersKb = wrapperspb.UInt32(maxResponseHeadersKiB)
	return &upstreamv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: common,
		UpstreamProtocolOptions:   &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit},
	}
}

// bind sets the options of sockets that connect to backends. In pod mode, they are in the
// network namespace that the client connection's filter state names, with any address
// there and our mark.
func bind(cfg Config) *corev3.BindConfig {
	out := &corev3.BindConfig{SocketOptions: []*corev3.SocketOption{urgentInline()}}
	if cfg.PodMode {
		any4, any6 := netip.AddrPortFrom(netip.IPv4Unspecified(), 0), netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		out.SourceAddress = socketAddress(any4).GetSocketAddress()
		out.ExtraSourceAddresses = []*corev3.ExtraSourceAddress{{Address: socketAddress(any6).GetSocketAddress()}}
		out.LocalAddressSelector = extension("netns", &selectorv3.Config{})
		out.SocketOptions = append(out.SocketOptions, socketOption("SO_MARK", soMark, int64(cfg.UpstreamMark)))
	}
	return out
}

// endpointsInputs are what a cluster's assignment is made of.
type endpointsInputs struct {
	name     clusterName
	backends []model.Backend
	// clusterVersion is the version of the cluster: Envoy doesn't use a changed
	// cluster until an assignment comes, and an unchanged one would not be sent.
	clusterVersion string
}

func (in endpointsInputs) Equal(other Inputs) bool {
	o, ok := other.(endpointsInputs)
	return ok && in.name == o.name && in.clusterVersion == o.clusterVersion && slices.Equal(in.backends, o.backends)
}

// Message makes the assignment: the backends of a frontend, grouped by zone.
// Without any, it has one empty locality, which holds the version.
func (in endpointsInputs) Message(cfg Config) proto.Message {
	backends := slices.Clone(in.backends)
	slices.SortStableFunc(backends, func(a, b model.Backend) int { return cmp.Compare(a.Zone, b.Zone) })
	var zones []*endpointv3.LocalityLbEndpoints
	for i, b := range backends {
		if i == 0 || backends[i-1].Zone != b.Zone {
			zones = append(zones, in.locality(b.Zone))
		}
		last := zones[len(zones)-1]
		last.LbEndpoints = append(last.LbEndpoints, endpoint(cfg, b))
	}
	if len(zones) == 0 {
		zones = append(zones, in.locality(""))
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: in.name.String(), Endpoints: zones}
}

func (in endpointsInputs) locality(zone string) *endpointv3.LocalityLbEndpoints {
	return &endpointv3.LocalityLbEndpoints{
		Locality: &corev3.Locality{Zone: utf8(zone)},
		Metadata: metadata("cluster", in.clusterVersion),
	}
}

func endpoint(cfg Config, b model.Backend) *endpointv3.LbEndpoint {
	pod, workload := "", ""
	if b.Pod != "" {
		pod = b.Namespace + "/" + b.Pod
	}
	if cfg.namesWorkloads() {
		workload = model.WorkloadOf(b.Pod)
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress(b.Address)}},
		Metadata:       metadata(podField, pod, nodeField, b.Node, "zone", b.Zone, workloadField, workload),
	}
}

// metadata holds pairs of field and value under nodevoy's key, without those
// whose value is empty.
func metadata(pairs ...string) *corev3.Metadata {
	fields := map[string]*structpb.Value{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fields[pairs[i]] = structpb.NewStringValue(utf8(pairs[i+1]))
		}
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{metadataKey: {Fields: fields}}}
}
