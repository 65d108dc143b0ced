// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// backOffBase and backOffMax pace the retries of what was not sent.
	backOffBase, backOffMax = 5 * time.Millisecond, 50 * time.Millisecond
	// endpointsTimeout bounds the wait of a cluster whose endpoints do not come,
	// while those before stay in use. It is above the discovery timeout: a new
	// cluster would begin without any, and answer that it has none.
	endpointsTimeout = 5 * time.Second
	// protocolOptions is the name Envoy knows a cluster's HTTP options by.
	protocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// cluster is how Envoy speaks to the backends of a frontend. It does not
// depend on which backends there are.
func cluster(cfg Config, in clusterInputs) *clusterv3.Cluster {
	endpoints := ads()
	endpoints.InitialFetchTimeout = durationpb.New(endpointsTimeout)
	return &clusterv3.Cluster{
		Name:                 in.name.String(),
		AltStatName:          utf8(in.port.String()),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: endpoints},
		ConnectTimeout:       durationpb.New(cfg.ConnectTimeout),
		LbPolicy:             clusterv3.Cluster_ROUND_ROBIN,
		CircuitBreakers:      noLimits(),
		UpstreamBindConfig:   bindInPod(cfg),
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{
			TcpKeepalive: tcpKeepalive(),
		},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{protocolOptions: pack(upstreamHTTP(cfg, in.name.absolute))},
	}
}

// noLimits lifts the limits of 1024 connections, and of as many requests, that
// Envoy sets by default. An application that was never limited must not meet
// them.
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

// upstreamHTTP speaks to the server what the client speaks to Envoy. absolute
// says to write the whole URL in the request line.
func upstreamHTTP(cfg Config, absolute bool) *upstreamv3.HttpProtocolOptions {
	http1 := http1Options()
	http1.SendFullyQualifiedUrl = absolute
	common := commonOptions(durationpb.New(cfg.UpstreamIdle))
	common.MaxResponseHeadersKb = wrapperspb.UInt32(maxHeadersKiB)
	return &upstreamv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: common,
		UpstreamProtocolOptions: &upstreamv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &upstreamv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions:  http1,
				Http2ProtocolOptions: http2Options(),
			},
		},
	}
}
