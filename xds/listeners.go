// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	commonstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	directv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	filterstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/nodevoy/nodevoy/agent/model"
)

// NotRedirected is what every listener writes to a connection that was made to the
// listener itself, which it then closes. Neither routes nor clusters take part, so
// the answer proves that Envoy's workers serve the listener, whatever else is
// refused.
const NotRedirected = "nodevoy: this connection was not redirected\n"

// Equal compares all of the inputs.
func (s ListenerSpec) Equal(other Inputs) bool { return s == other }

// Message makes the listener.
func (s ListenerSpec) Message(cfg Config) proto.Message {
	own := s.addresses(cfg)
	l := &listenerv3.Listener{
		Name:       s.Name(),
		StatPrefix: s.Name(),
		Address:    s.listenAddress(cfg, own[0]),
		// The address may be added to the node after Envoy has this listener.
		Freebind:         wrapperspb.Bool(true),
		TcpKeepalive:     localKeepalive(),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,

		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferSize),

		PerConnectionBufferHighWatermarkTimeout: durationpb.New(cfg.StallTimeout),

		SocketOptions: []*corev3.SocketOption{
			socketOption("SO_RCVBUF", soRcvBuf, localSocketBuffer), socketOption("SO_SNDBUF", soSndBuf, localSocketBuffer),
			urgentInline(),
		},
		// Finds the destination in conntrack or, if the socket is transparent,
		// in the socket: without it, Envoy takes its own address for it.
		ListenerFilters: []*listenerv3.ListenerFilter{listenerFilter("original_dst", &originaldstv3.OriginalDst{})},
	}
	if cfg.Transparent {
		l.Transparent = wrapperspb.Bool(true)
	}
	for _, addr := range own[1:] {
		l.AdditionalAddresses = append(l.AdditionalAddresses, &listenerv3.AdditionalAddress{Address: s.listenAddress(cfg, addr)})
	}
	if cfg.PodMode {
		// The statistics of all pods are one: otherwise, the metrics would grow
		// with every pod.
		l.StatPrefix = s.Class.String()
	}
	switch s.Class {
	case model.ClassHTTP:
		l.FilterChains = []*listenerv3.FilterChain{notRedirected(own), s.httpChain(cfg)}
	case model.ClassTCP:
		l.FilterChains = []*listenerv3.FilterChain{notRedirected(own), s.tcpChain(cfg, formTCP)}
	default:
		http := s.httpChain(cfg)
		http.FilterChainMatch = &listenerv3.FilterChainMatch{ApplicationProtocols: []string{"http/1.0", "http/1.1", "h2c"}}
		tls := s.tcpChain(cfg, formTLS)
		tls.Name, tls.FilterChainMatch = "tls", &listenerv3.FilterChainMatch{TransportProtocol: "tls"}
		l.FilterChains = []*listenerv3.FilterChain{notRedirected(own), http, tls, s.tcpChain(cfg, formTCP)}
		l.ListenerFilters = append(l.ListenerFilters,
			listenerFilter("tls_inspector", &tlsinspectorv3.TlsInspector{}), listenerFilter("http_inspector", &inspectorv3.HttpInspector{}))
		// A client that waits for the server to speak first is not HTTP.
		l.ListenerFiltersTimeout = durationpb.New(cfg.DetectTimeout)
		l.ContinueOnListenerFiltersTimeout = true
	}
	return l
}

// listenAddress is where the listener listens, given one of its addresses: in the
// pod's network namespace, if it has one.
func (s ListenerSpec) listenAddress(cfg Config, addr netip.Addr) *corev3.Address {
	out := socketAddress(cfg.listenerAddress(addr, s.Class))
	out.GetSocketAddress().NetworkNamespaceFilepath = utf8(s.Target.Netns)
	return out
}

// notRedirected answers the connections that were made to the listener itself, such
// as the agent's probes. It is a chain of its own, so that a probe doesn't fail when
// the pod has its maximum of connections.
func notRedirected(own []netip.Addr) *listenerv3.FilterChain {
	match := &listenerv3.FilterChainMatch{}
	for _, addr := range own {
		match.PrefixRanges = append(match.PrefixRanges, &corev3.CidrRange{
			AddressPrefix: addr.String(),
			PrefixLen:     wrapperspb.UInt32(uint32(addr.BitLen())),
		})
	}
	answer := &directv3.Config{Response: inline(NotRedirected)}
	return &listenerv3.FilterChain{
		Name: "not-redirected", FilterChainMatch: match,
		Filters: []*listenerv3.Filter{networkFilter("answer", answer)},
	}
}

// httpChain serves HTTP/1 and HTTP/2.
func (s ListenerSpec) httpChain(cfg Config) *listenerv3.FilterChain {
	manager := connectionManager(cfg, s, accessLogs(cfg, s, formHTTP1))
	return &listenerv3.FilterChain{Name: "http", Filters: append(s.firstFilters(cfg), networkFilter("http", manager))}
}

// tcpChain passes bytes to the cluster of this form that the connection's destination
// names.
func (s ListenerSpec) tcpChain(cfg Config, as form) *listenerv3.FilterChain {
	proxy := &tcpproxyv3.TcpProxy{
		StatPrefix: s.Class.String(),
		// Never used: the filter state always names the cluster.
		ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: "none"},
		OnDemand: &tcpproxyv3.TcpProxy_OnDemand{
			OdcdsConfig: ads(),
			Timeout:     durationpb.New(cfg.DiscoveryTimeout),
		},
		IdleTimeout:        durationpb.New(0),
		MaxConnectAttempts: wrapperspb.UInt32(3),
		AccessLog:          accessLogs(cfg, s, as),
	}
	return &listenerv3.FilterChain{Name: "tcp", Filters: append(
		s.firstFilters(cfg, filterState("envoy.tcp_proxy.cluster", string(as)+destination)), networkFilter("tcp", proxy),
	)}
}

// firstFilters begin each chain: they set these states of the connection. Connections
// to backends are pooled by the states that are shared with them, so pods never share
// one: servers authenticate connections, too. In pod mode they are made in the network
// namespace that the client's connection was accepted in, and those of the pod are
// limited.
func (s ListenerSpec) firstFilters(cfg Config, states ...*commonstatev3.FilterStateValue) []*listenerv3.Filter {
	var filters []*listenerv3.Filter
	pooledBy := filterState("nodevoy.source", source)
	if cfg.PodMode {
		if cfg.MaxConnectionsPerPod > 0 {
			filters = append(filters, connectionLimit(s.Class.String(), cfg.MaxConnectionsPerPod))
		}
		pooledBy = filterState("envoy.network.upstream_bind_override.network_namespace",
			"%FILTER_STATE(envoy.network.network_namespace:PLAIN)%")
	}
	// A factory whose strings are not hashable would not part the pools.
	pooledBy.FactoryKey = "envoy.hashable_string"
	pooledBy.SharedWithUpstream = commonstatev3.FilterStateValue_ONCE
	return append(filters, networkFilter("state", &filterstatev3.Config{OnNewConnection: append(states, pooledBy)}))
}

func connectionLimit(statPrefix string, most uint32) *listenerv3.Filter {
	return networkFilter("limit", &limitv3.ConnectionLimit{StatPrefix: statPrefix, MaxConnections: wrapperspb.UInt64(uint64(most))})
}

func filterState(key, format string) *commonstatev3.FilterStateValue {
	return &commonstatev3.FilterStateValue{
		Key:   &commonstatev3.FilterStateValue_ObjectKey{ObjectKey: key},
		Value: &commonstatev3.FilterStateValue_FormatString{FormatString: textFormat(format)},
	}
}
