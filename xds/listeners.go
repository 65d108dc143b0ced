// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	commonstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	filterstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/nodevoy/nodevoy/agent/model"
)

// destination is the address a connection was made to, before it was
// redirected: the name of its cluster.
const destination = "%DOWNSTREAM_LOCAL_ADDRESS%"

// listener makes the listener of this name. In host mode there is one for each
// capture class and address family, in pod mode one for each capture class and
// pod. No Service ever changes one.
func listener(cfg Config, name string, spec ListenerSpec) *listenerv3.Listener {
	own := spec.addresses(cfg)
	l := &listenerv3.Listener{
		Name:       name,
		StatPrefix: name,
		Address:    listenAddress(cfg, spec, own[0]),
		// The address appears on the node when redirection is prepared, which
		// may be after Envoy was told of it.
		Freebind:         wrapperspb.Bool(true),
		TcpKeepalive:     tcpKeepalive(),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
		// Finds the destination in conntrack or, if the socket is transparent,
		// in the socket: without it, Envoy takes its own address for it.
		ListenerFilters: []*listenerv3.ListenerFilter{
			listenerFilter("original_dst", pack(&originaldstv3.OriginalDst{})),
		},
	}
	if cfg.Transparent {
		l.Transparent = wrapperspb.Bool(true)
	}
	for _, addr := range own[1:] {
		l.AdditionalAddresses = append(l.AdditionalAddresses, &listenerv3.AdditionalAddress{Address: listenAddress(cfg, spec, addr)})
	}
	if cfg.PodMode {
		// The figures of all pods are one: with those of each, the metrics would
		// grow with every pod.
		l.StatPrefix = spec.Class.String()
	}
	switch spec.Class {
	case model.ClassHTTP:
		l.FilterChains = []*listenerv3.FilterChain{httpChain(cfg, spec)}
		if cfg.PodMode {
			l.FilterChains = append(l.FilterChains, answeringChain(cfg, own))
		}
	case model.ClassTCP:
		l.FilterChains = []*listenerv3.FilterChain{closingChain(own), tcpChain(cfg, spec)}
	default:
		http := httpChain(cfg, spec)
		http.FilterChainMatch = &listenerv3.FilterChainMatch{ApplicationProtocols: []string{"http/1.0", "http/1.1", "h2c"}}
		l.FilterChains = []*listenerv3.FilterChain{closingChain(own), http, tcpChain(cfg, spec)}
		l.ListenerFilters = append(l.ListenerFilters, listenerFilter("http_inspector", pack(&inspectorv3.HttpInspector{})))
		// A client that waits for the server to speak first is not HTTP.
		l.ListenerFiltersTimeout = durationpb.New(cfg.DetectTimeout)
		l.ContinueOnListenerFiltersTimeout = true
	}
	return l
}

// listenAddress is where the listener listens, given one of its
// addresses: in the pod's network namespace, if it has one.
func listenAddress(cfg Config, spec ListenerSpec, addr netip.Addr) *corev3.Address {
	out := address(cfg.listenerAddress(addr, spec.Class))
	out.GetSocketAddress().NetworkNamespaceFilepath = utf8(spec.Target.Netns)
	return out
}

// notRedirected matches the connections that were made to the listener itself.
func notRedirected(own []netip.Addr) *listenerv3.FilterChainMatch {
	match := &listenerv3.FilterChainMatch{}
	for _, addr := range own {
		match.PrefixRanges = append(match.PrefixRanges, &corev3.CidrRange{
			AddressPrefix: addr.String(),
			PrefixLen:     wrapperspb.UInt32(uint32(addr.BitLen())),
		})
	}
	return match
}

// closingChain takes the connections that were made to the listener itself.
// With no filter in it, Envoy closes them.
func closingChain(own []netip.Addr) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{Name: "not-redirected", FilterChainMatch: notRedirected(own)}
}

// answeringChain takes, in pod mode, the connections that were made to the HTTP
// listener itself: a pod that has as many connections as it may is not to look
// like an Envoy that doesn't serve. It has the routes and their answer, writes
// no log, and takes few connections, as a pod might fill it.
func answeringChain(cfg Config, own []netip.Addr) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:             "not-redirected",
		FilterChainMatch: notRedirected(own),
		Filters: []*listenerv3.Filter{
			connectionLimit("not-redirected", maxProbes),
			networkFilter("http", pack(connectionManager(cfg, "not-redirected", nil))),
		},
	}
}

// httpChain speaks HTTP/1 and HTTP/2. In host mode, a request that was not
// redirected meets the routes' own answer to it, and is not logged.
func httpChain(cfg Config, spec ListenerSpec) *listenerv3.FilterChain {
	manager := connectionManager(cfg, spec.Class.String(), httpAccessLog(cfg, spec))
	return &listenerv3.FilterChain{
		Name:    "http",
		Filters: append(podFilters(cfg, spec.Class), networkFilter("http", pack(manager))),
	}
}

// tcpChain passes bytes, to the cluster named by the connection's destination.
func tcpChain(cfg Config, spec ListenerSpec) *listenerv3.FilterChain {
	setCluster := &filterstatev3.Config{
		OnNewConnection: []*commonstatev3.FilterStateValue{{
			Key:   &commonstatev3.FilterStateValue_ObjectKey{ObjectKey: "envoy.tcp_proxy.cluster"},
			Value: &commonstatev3.FilterStateValue_FormatString{FormatString: textFormat(destination)},
		}},
	}
	proxy := &tcpproxyv3.TcpProxy{
		StatPrefix: spec.Class.String(),
		// Never used: the filter state always names the cluster.
		ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: "none"},
		OnDemand: &tcpproxyv3.TcpProxy_OnDemand{
			OdcdsConfig: ads(),
			Timeout:     durationpb.New(cfg.DiscoveryTimeout),
		},
		IdleTimeout:        durationpb.New(0),
		MaxConnectAttempts: wrapperspb.UInt32(3),
		AccessLog:          tcpAccessLog(cfg, spec),
	}
	return &listenerv3.FilterChain{
		Name: "tcp",
		Filters: append(podFilters(cfg, spec.Class),
			networkFilter("cluster", pack(setCluster)),
			networkFilter("tcp", pack(proxy)),
		),
	}
}

// tcpKeepalive makes the kernel find peers that vanished. The client's and the
// server's own keepalive end at Envoy, so Envoy's must do what theirs did.
func tcpKeepalive() *corev3.TcpKeepalive {
	return &corev3.TcpKeepalive{
		KeepaliveTime:     wrapperspb.UInt32(60),
		KeepaliveInterval: wrapperspb.UInt32(10),
		KeepaliveProbes:   wrapperspb.UInt32(6),
	}
}
