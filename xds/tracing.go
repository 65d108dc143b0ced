// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"maps"
	"slices"
	"strings"

	exprv1 "cel.dev/expr"
	celv3 "github.com/cncf/xds/go/xds/type/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	detectorsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/tracers/opentelemetry/resource_detectors/v3"
	samplersv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/tracers/opentelemetry/samplers/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/nodevoy/nodevoy/agent/model"
)

const (
	// tracedRoute is the name of the routes whose requests are traced.
	tracedRoute = "traced"
	// traceHeader is W3C's context of a trace.
	traceHeader = "traceparent"
	// spans are buffered while the collector doesn't take them, up to this many of each
	// worker and pod.
	maxSpans = 256
)

// trace lets a listener trace requests. Which ones, their routes say: those of a route
// named tracedRoute, which also adds the context for the server. Envoy's own sampling is
// by request ids, which requests rarely have, and its tracer would add its context to
// all requests.
func trace(m *hcmv3.HttpConnectionManager, cfg Config, spec ListenerSpec) {
	if !cfg.tracing() {
		return
	}
	m.Tracing = &hcmv3.HttpConnectionManager_Tracing{
		NoContextPropagation: true,
		Operation:            "%REQ(:METHOD)%",
		CustomTags: []*tracingv3.CustomTag{
			formatTag("nodevoy.service", "%UPSTREAM_CLUSTER%"),
			backendTag("nodevoy.backend.pod", podField),
			backendTag("nodevoy.backend.workload", workloadField),
			backendTag("nodevoy.backend.node", nodeField),
		},
		Provider: &tracev3.Tracing_Http{
			Name: "envoy.tracers.opentelemetry",
			ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: pack(&tracev3.OpenTelemetryConfig{
				GrpcService: collectorService(), ServiceName: serviceName(cfg, spec),
				ResourceDetectors: []*corev3.TypedExtensionConfig{
					extension("nodevoy", &detectorsv3.StaticConfigResourceDetectorConfig{Attributes: resource(cfg, spec)}),
				},
				Sampler:      extension("route", &samplersv3.CELSamplerConfig{Expression: onTracedRoute()}),
				MaxCacheSize: wrapperspb.UInt32(maxSpans),
			})},
		},
	}
	m.RequestIdExtension = &hcmv3.RequestIDExtension{TypedConfig: pack(&uuidv3.UuidRequestIdConfig{
		// It would write into the request's own id.
		PackTraceReason: wrapperspb.Bool(false), UseRequestIdForTraceSampling: wrapperspb.Bool(false),
	})}
}

// onTracedRoute is the expression xds.route_name == "traced", parsed: Envoy's tracer
// takes no text.
func onTracedRoute() *celv3.CelExpression {
	name := &exprv1.Expr{Id: 2, ExprKind: &exprv1.Expr_SelectExpr{SelectExpr: &exprv1.Expr_Select{
		Operand: &exprv1.Expr{Id: 1, ExprKind: &exprv1.Expr_IdentExpr{IdentExpr: &exprv1.Expr_Ident{Name: "xds"}}}, Field: "route_name",
	}}}
	traced := &exprv1.Expr{Id: 3, ExprKind: &exprv1.Expr_ConstExpr{ConstExpr: &exprv1.Constant{
		ConstantKind: &exprv1.Constant_StringValue{StringValue: tracedRoute},
	}}}
	equal := &exprv1.Expr{Id: 4, ExprKind: &exprv1.Expr_CallExpr{CallExpr: &exprv1.Expr_Call{
		Function: "_==_", Args: []*exprv1.Expr{name, traced},
	}}}
	return &celv3.CelExpression{CelExprParsed: &exprv1.ParsedExpr{Expr: equal}}
}

// RouteName is the name of the routes of a listener: those of the pod's namespace, if a
// namespace may choose which requests are traced. Routes change without an end of
// connections, unlike listeners.
func (s ListenerSpec) RouteName(cfg Config) string {
	if cfg.tracing() && cfg.byNamespace() {
		return RouteName + "/" + utf8(s.Target.Namespace)
	}
	return RouteName
}

// routesOf are the inputs of the routes of this name; nil if there are none.
func routesOf(name string, namespaces map[string]model.Telemetry) Inputs {
	if name == RouteName {
		return routeInputs{}
	}
	namespace, of := strings.CutPrefix(name, RouteName+"/")
	if !of {
		return nil
	}
	in := routeInputs{name: name}
	if own := namespaces[namespace].Tracing; own != nil {
		in.own, in.tracing = true, *own
	}
	return in
}

// traced adds routes for the requests that are traced, before those for all: for those
// that come with a trace that is recorded, and for a share of those that come with none.
// What comes with any other context keeps it as it is.
func traced(routes []*routev3.Route, share model.Share) []*routev3.Route {
	if share == 0 {
		return routes
	}
	var out []*routev3.Route
	for _, when := range []*routev3.RouteMatch{
		{Headers: recordedTrace()},
		{
			Headers:         []*routev3.HeaderMatcher{inverted(present(traceHeader))},
			RuntimeFraction: &corev3.RuntimeFractionalPercent{DefaultValue: fraction(share)},
		},
	} {
		for _, r := range tracedRoutes() {
			r.Match.Headers = append(slices.Clone(when.Headers), r.Match.Headers...)
			r.Match.RuntimeFraction = when.RuntimeFraction
			out = append(out, r)
		}
	}
	return append(out, routes...)
}

// recordedTrace matches requests with the context of a trace that is recorded, in the
// only version that there is, if it is valid: Envoy makes no span for another. Envoy
// limits the size of an expression, and so two together say which letters may be where.
func recordedTrace() []*routev3.HeaderMatcher {
	zeros := strings.Repeat("0", 16)
	return []*routev3.HeaderMatcher{
		matches(traceHeader, `00-[0-z]{32}-[0-z]{16}-[0-z][13579bdf]`), matches(traceHeader, `[0-9a-f-]*`),
		inverted(header(traceHeader, hasPrefix("00-"+zeros+zeros, false))),
		inverted(header(traceHeader, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: "-" + zeros + "-"}})),
	}
}

// tracedRoutes are those of all requests that have one host and are no CONNECT, for
// which there is no span of use.
func tracedRoutes() []*routev3.Route {
	var routes []*routev3.Route
	for _, r := range pathRoutes(closing(), inverted(severalHosts())) {
		routes = append(routes, thenClose(r))
	}
	routes = append(routes, pathRoutes(inverted(severalHosts()))...)
	for _, r := range routes {
		r.Name = tracedRoute
		r.RequestHeadersToAdd = append(r.RequestHeadersToAdd, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: traceHeader, Value: "00-%TRACE_ID%-%SPAN_ID%-01"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return routes
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// backendTag is what the assignment says of the backend.
func backendTag(tag, field string) *tracingv3.CustomTag {
	return &tracingv3.CustomTag{Tag: tag, Type: &tracingv3.CustomTag_Metadata_{Metadata: &tracingv3.CustomTag_Metadata{
		Kind: &metadatav3.MetadataKind{Kind: &metadatav3.MetadataKind_Host_{Host: &metadatav3.MetadataKind_Host{}}},
		MetadataKey: &metadatav3.MetadataKey{Key: metadataKey, Path: []*metadatav3.MetadataKey_PathSegment{
			{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: field}},
		}},
	}}}
}

func formatTag(tag, format string) *tracingv3.CustomTag {
	return &tracingv3.CustomTag{Tag: tag, Type: &tracingv3.CustomTag_Value{Value: format}}
}
