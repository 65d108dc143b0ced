// SPDX-License-Identifier: Apache-2.0

package xds

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ondemandv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/on_demand/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	preservev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// anyUpgrade stands for every upgrade token while Envoy decides on a request:
// Envoy wants each by name, and clients and servers may agree on any.
const anyUpgrade = "websocket"

// connectionManager passes requests on as they came, and logs them. Each setting
// that is not about routing turns off a change that Envoy makes by default.
func connectionManager(cfg Config, spec ListenerSpec, logs []*accesslogv3.AccessLog) *hcmv3.HttpConnectionManager {
	http1 := http1Options()
	http1.AllowCustomMethods = true
	// An offer to switch to TLS in place, which some clients add to each request
	// and servers do not accept. Passed on, it would cost the connection.
	http1.IgnoreHttp_11Upgrade = []*matcherv3.StringMatcher{hasPrefix("TLS/", true)}
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: spec.Class.String(),
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource: ads(), RouteConfigName: spec.RouteName(cfg),
		}},
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{extension("destination", earlyMutation(cfg))},
		HttpFilters: append(rateFilters(cfg),
			httpFilter("on_demand", &ondemandv3.OnDemand{Odcds: &ondemandv3.OnDemandCds{
				Source: ads(), Timeout: durationpb.New(cfg.DiscoveryTimeout),
			}}),
			httpFilter("router", &routerv3.Router{
				SuppressEnvoyHeaders: true,
				// A counter of each cluster for each code, and a histogram: they cost
				// what countLog does, a twentieth of a request, and a server could
				// fill memory with codes of its own.
				DynamicStats: wrapperspb.Bool(false),
				UpstreamLog:  upstreamLog(cfg),
			}),
		),
		AccessLog:        logs,
		LocalReplyConfig: localReplies(),

		HttpProtocolOptions:       http1,
		Http2ProtocolOptions:      http2Options(cfg.MaxStreams, localWindow, localConnectionWindow, cfg.MaxHeadersKiB),
		CommonHttpProtocolOptions: commonOptions(durationpb.New(0)),
		MaxRequestHeadersKb:       wrapperspb.UInt32(cfg.MaxHeadersKiB),
		StreamIdleTimeout:         durationpb.New(0),
		RequestTimeout:            durationpb.New(0),
		RequestHeadersTimeout:     durationpb.New(0),
		Proxy_100Continue:         true,
		// h2c is not passed on: Envoy takes it for a plain request, which is an
		// answer that any server may give.
		UpgradeConfigs: []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: anyUpgrade}, {UpgradeType: "CONNECT"}},
		// A malformed HTTP/2 request ends itself, not its connection.
		StreamErrorOnInvalidHttpMessage: wrapperspb.Bool(true),

		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,
		UseRemoteAddress:           wrapperspb.Bool(false),
		SkipXffAppend:              true,
		GenerateRequestId:          wrapperspb.Bool(false),
		PreserveExternalRequestId:  true,
		ForwardClientCertDetails:   hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY,
		// No address is internal: Envoy trusts no client's headers.
		InternalAddressConfig:        &hcmv3.HttpConnectionManager_InternalAddressConfig{},
		NormalizePath:                wrapperspb.Bool(false),
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_KEEP_UNCHANGED,
	}
	trace(m, cfg, spec)
	return m
}

// earlyMutation runs before anything reads the request's headers. It removes
// what the client sent under our own prefix, and then writes there what the
// routes need: the address that the client connected to, and those headers of
// the client that Envoy is about to overwrite. The routes remove it all.
func earlyMutation(cfg Config) *earlyv3.HeaderMutation {
	set := func(name, value string, action corev3.HeaderValueOption_HeaderAppendAction) *mutationv3.HeaderMutation {
		return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: action,
		}}}
	}
	const add = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	m := &earlyv3.HeaderMutation{Mutations: []*mutationv3.HeaderMutation{
		{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{
			KeyMatcher: hasPrefix(privatePrefix, true),
		}}},
		set(destinationHeader, "%PROTOCOL% "+destination, add),
		// At this point only an absolute URL has given an HTTP/1 request a scheme.
		set(formHeader, "%REQ(:scheme):4% %PROTOCOL% "+destination, add),
		// Absent if the client sent none.
		set(protoHeader, "%REQ(x-forwarded-proto)%", add),
		set(upgradeHeader, "%REQ(upgrade)%", add),
		set(closeHeader, "%REQ(connection)% %PROTOCOL%", add),
		set("upgrade", anyUpgrade, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS),
	}}
	if cfg.MaxRequestRate > 0 {
		m.Mutations = append(m.Mutations, set(sourceHeader, source, add))
	}
	return m
}

// http1Options are those towards both client and server.
func http1Options() *corev3.Http1ProtocolOptions {
	return &corev3.Http1ProtocolOptions{
		AcceptHttp_10: true,
		// HTTP/1.0 has no Host; what the client connected to replaces it.
		DefaultHostForHttp_10: noHost,
		EnableTrailers:        true,
		HeaderKeyFormat: &corev3.Http1ProtocolOptions_HeaderKeyFormat{
			HeaderFormat: &corev3.Http1ProtocolOptions_HeaderKeyFormat_StatefulFormatter{
				StatefulFormatter: extension("preserve_case", &preservev3.PreserveCaseFormatterConfig{
					ForwardReasonPhrase:         true,
					FormatterTypeOnEnvoyHeaders: preservev3.PreserveCaseFormatterConfig_PROPER_CASE,
				}),
			},
		},
	}
}

// commonOptions hold for both versions; idle is how long a connection without
// a request on it is kept, zero for ever.
func commonOptions(idle *durationpb.Duration) *corev3.HttpProtocolOptions {
	return &corev3.HttpProtocolOptions{
		IdleTimeout:     idle,
		MaxHeadersCount: wrapperspb.UInt32(maxHeaders),
	}
}
