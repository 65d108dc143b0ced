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

// Listeners are all of them, sorted by name: one for each capture class and
// address family. They depend on the configuration alone, so no Service ever
// changes one.
func Listeners(cfg Config, _ []Place) []*listenerv3.Listener {
	var out []*listenerv3.Listener
	for _, class := range []model.Class{model.ClassDetect, model.ClassHTTP, model.ClassTCP} {
		for _, addr := range cfg.addresses() {
			out = append(out, listener(cfg, class, addr))
		}
	}
	return out
}

func listener(cfg Config, class model.Class, addr netip.Addr) *listenerv3.Listener {
	own := cfg.listenerAddress(addr, class)
	l := &listenerv3.Listener{
		Name:       listenerName(class, addr),
		StatPrefix: listenerName(class, addr),
		Address:    address(own),
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
	switch class {
	case model.ClassHTTP:
		// A request that was not redirected meets the routes' own answer to it.
		l.FilterChains = []*listenerv3.FilterChain{httpChain(cfg, class, own)}
	case model.ClassTCP:
		l.FilterChains = []*listenerv3.FilterChain{closingChain(addr), tcpChain(cfg, class)}
	default:
		http := httpChain(cfg, class, own)
		http.FilterChainMatch = &listenerv3.FilterChainMatch{ApplicationProtocols: []string{"http/1.0", "http/1.1", "h2c"}}
		l.FilterChains = []*listenerv3.FilterChain{closingChain(addr), http, tcpChain(cfg, class)}
		l.ListenerFilters = append(l.ListenerFilters, listenerFilter("http_inspector", pack(&inspectorv3.HttpInspector{})))
		// A client that waits for the server to speak first is not HTTP.
		l.ListenerFiltersTimeout = durationpb.New(cfg.DetectTimeout)
		l.ContinueOnListenerFiltersTimeout = true
	}
	return l
}

// closingChain takes the connections that were made to the listener itself.
// With no filter in it, Envoy closes them.
func closingChain(addr netip.Addr) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name: "not-redirected",
		FilterChainMatch: &listenerv3.FilterChainMatch{
			PrefixRanges: []*corev3.CidrRange{{
				AddressPrefix: addr.String(),
				PrefixLen:     wrapperspb.UInt32(uint32(addr.BitLen())),
			}},
		},
	}
}

// httpChain speaks HTTP/1 and HTTP/2.
func httpChain(cfg Config, class model.Class, own netip.AddrPort) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:    "http",
		Filters: []*listenerv3.Filter{networkFilter("http", pack(connectionManager(cfg, class, own)))},
	}
}

// tcpChain passes bytes, to the cluster named by the connection's destination.
func tcpChain(cfg Config, class model.Class) *listenerv3.FilterChain {
	setCluster := &filterstatev3.Config{
		OnNewConnection: []*commonstatev3.FilterStateValue{{
			Key:   &commonstatev3.FilterStateValue_ObjectKey{ObjectKey: "envoy.tcp_proxy.cluster"},
			Value: &commonstatev3.FilterStateValue_FormatString{FormatString: textFormat(destination)},
		}},
	}
	proxy := &tcpproxyv3.TcpProxy{
		StatPrefix: class.String(),
		// Never used: the filter state always names the cluster.
		ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: "none"},
		OnDemand: &tcpproxyv3.TcpProxy_OnDemand{
			OdcdsConfig: ads(),
			Timeout:     durationpb.New(cfg.DiscoveryTimeout),
		},
		IdleTimeout:        durationpb.New(0),
		MaxConnectAttempts: wrapperspb.UInt32(3),
		AccessLog:          tcpAccessLog(cfg),
	}
	return &listenerv3.FilterChain{
		Name: "tcp",
		Filters: []*listenerv3.Filter{
			networkFilter("cluster", pack(setCluster)),
			networkFilter("tcp", pack(proxy)),
		},
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
