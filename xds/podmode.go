// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	commonstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	filterstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	selectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/local_address_selectors/filter_state_override/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/nodevoy/nodevoy/agent/model"
)

const (
	// maxProbes is how many connections a pod may have at a time to its own
	// listener, which nobody but the agent has any use for.
	maxProbes = 100
	// namespaceState is where Envoy looks for the network namespace to dial
	// from; namespaceFormat is that which a connection was accepted in.
	namespaceState  = "envoy.network.upstream_bind_override.network_namespace"
	namespaceFormat = "%FILTER_STATE(envoy.network.network_namespace:PLAIN)%"
	// hashable makes the state part of what connections to backends are pooled
	// by. With another kind of text they would be shared across pods, and a
	// request would leave from the pod that had the connection made.
	hashable = "envoy.hashable_string"
)

// podFilters begin each chain in pod mode: they bound the connections of the
// pod, and have those to backends made in its network namespace.
func podFilters(cfg Config, class model.Class) []*listenerv3.Filter {
	if !cfg.PodMode {
		return nil
	}
	setNamespace := &filterstatev3.Config{OnNewConnection: []*commonstatev3.FilterStateValue{{
		Key:                &commonstatev3.FilterStateValue_ObjectKey{ObjectKey: namespaceState},
		FactoryKey:         hashable,
		Value:              &commonstatev3.FilterStateValue_FormatString{FormatString: textFormat(namespaceFormat)},
		SharedWithUpstream: commonstatev3.FilterStateValue_ONCE,
	}}}
	return []*listenerv3.Filter{
		connectionLimit(class.String(), cfg.MaxConnectionsPerPod),
		networkFilter("netns", pack(setNamespace)),
	}
}

// connectionLimit bounds the connections of the chain it is in.
func connectionLimit(statPrefix string, most uint32) *listenerv3.Filter {
	return networkFilter("limit", pack(&limitv3.ConnectionLimit{
		StatPrefix:     statPrefix,
		MaxConnections: wrapperspb.UInt64(uint64(most)),
	}))
}

// bindInPod has connections to backends made in the network namespace that the
// connection's state names, from any address there, with our mark.
func bindInPod(cfg Config) *corev3.BindConfig {
	if !cfg.PodMode {
		return nil
	}
	const solSocket, soMark = 1, 36
	any4, any6 := netip.AddrPortFrom(netip.IPv4Unspecified(), 0), netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	return &corev3.BindConfig{
		SourceAddress:        address(any4).GetSocketAddress(),
		ExtraSourceAddresses: []*corev3.ExtraSourceAddress{{Address: address(any6).GetSocketAddress()}},
		LocalAddressSelector: extension("netns", pack(&selectorv3.Config{})),
		SocketOptions: []*corev3.SocketOption{{
			Description: "SO_MARK", Level: solSocket, Name: soMark,
			Value: &corev3.SocketOption_IntValue{IntValue: int64(cfg.UpstreamMark)},
			State: corev3.SocketOption_STATE_PREBIND,
		}},
	}
}
