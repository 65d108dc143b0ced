// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/nodevoy/nodevoy/agent/model"
)

// routeInputs are what routes are made of: without policies, only what of a namespace is
// traced, if they are of one.
type routeInputs struct {
	// name is that of the routes of a namespace; empty for the node's.
	name string
	// own is set if the namespace says itself which share is traced.
	own     bool
	tracing model.Share
}

func (in routeInputs) Equal(other Inputs) bool { return in == other }

// Message makes the route configuration of the HTTP listeners. A virtual host's
// domain is a frontend's address. Without HTTP policies of Services there is one
// for all, whose cluster is named after the address the client connected to.
func (in routeInputs) Message(cfg Config) proto.Message {
	share := cfg.Tracing
	if in.own {
		share = in.tracing
	}
	r := &routev3.RouteConfiguration{
		Name:        cmp.Or(in.name, RouteName),
		VhostHeader: destinationHeader,
		// Clusters are loaded when they are first used.
		ValidateClusters: wrapperspb.Bool(false),
		VirtualHosts: []*routev3.VirtualHost{{
			Name:    "default",
			Domains: []string{"*"},
			// A route's own header changes come before its virtual host's, so
			// that a route can still read what is removed here.
			RequestHeadersToRemove: []string{destinationHeader, protoHeader, upgradeHeader, formHeader, closeHeader},
			Routes:                 traced(defaultRoutes(), share),
		}},
	}
	limitRate(r, cfg)
	return r
}

// defaultRoutes all lead to the same backends. They differ in which of Envoy's
// changes to the request they undo: to a missing Host, an absolute URL, the
// x-forwarded-proto, the wish to close. Requests of several hosts are refused.
// Envoy tries them in order, so the most frequent is first.
func defaultRoutes() []*routev3.Route {
	most := pathRoutes(inverted(severalHosts()), inverted(closing()))[0]
	routes := []*routev3.Route{most, refuse(anyPath(severalHosts()))}
	for _, r := range pathRoutes(closing()) {
		routes = append(routes, thenClose(r))
	}
	routes = append(routes, pathRoutes()[1:]...) // What the first would match has had its route.
	return append(routes,
		refuse(anyConnect(severalHosts())),
		withoutProto(forward(anyConnect(inverted(ownProto())))),
		forward(anyConnect()),
	)
}

// pathRoutes are for all requests but CONNECT that all of the matchers match, the most
// frequent first.
func pathRoutes(also ...*routev3.HeaderMatcher) []*routev3.Route {
	match := func(headers ...*routev3.HeaderMatcher) *routev3.RouteMatch {
		return anyPath(append(headers, also...)...)
	}
	return []*routev3.Route{
		withoutProto(forward(match(inverted(ownProto()), inverted(absoluteURL()), inverted(withoutHost())))),
		forward(match(ownProto(), inverted(absoluteURL()), inverted(withoutHost()))),
		toAbsolute(withoutProto(forward(match(inverted(ownProto()), absoluteURL())))),
		toAbsolute(forward(match(absoluteURL()))),
		toDestination(withoutProto(forward(match(inverted(ownProto()))))),
		toDestination(forward(match())),
	}
}

// closing matches requests that are the last on their client's connection, by what
// the client says.
func closing() *routev3.HeaderMatcher {
	return matches(closeHeader, `(?i).*close.*| HTTP/1\.0`)
}

// thenClose tells the server what the client said: the connection to it has no other
// use, and would take up one of its workers until Envoy closes it. An upgrade has a
// Connection header of its own.
func thenClose(r *routev3.Route) *routev3.Route {
	r.RequestHeadersToAdd = append(r.RequestHeadersToAdd, &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: "connection", Value: "close"},
		AppendAction: corev3.HeaderValueOption_ADD_IF_ABSENT,
	})
	return r
}

// withoutProto removes the x-forwarded-proto that Envoy added.
func withoutProto(r *routev3.Route) *routev3.Route {
	r.RequestHeadersToRemove = []string{"x-forwarded-proto"}
	return r
}

// toDestination makes the address that the client connected to the Host.
func toDestination(r *routev3.Route) *routev3.Route {
	r.GetRoute().HostRewriteSpecifier = &routev3.RouteAction_HostRewrite{HostRewrite: destination}
	return r
}

// toAbsolute sends to the cluster for requests that have an absolute URL.
func toAbsolute(r *routev3.Route) *routev3.Route {
	r.GetRoute().ClusterSpecifier = &routev3.RouteAction_ClusterHeader{ClusterHeader: formHeader}
	return r
}

// ownProto matches requests that came with an x-forwarded-proto.
func ownProto() *routev3.HeaderMatcher { return present(protoHeader) }

// withoutHost matches HTTP/1.0 requests that came without a Host.
func withoutHost() *routev3.HeaderMatcher { return headerIs(":authority", noHost) }

// severalHosts matches requests with more than one Host: Envoy joins them by a comma,
// which is in no name of a host.
func severalHosts() *routev3.HeaderMatcher {
	return header(":authority", &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: ","}})
}

// absoluteURL matches HTTP/1 requests that have an absolute URL.
func absoluteURL() *routev3.HeaderMatcher {
	return header(formHeader, hasPrefix(absolutePrefix+"HTTP/1.", false))
}

// anyConnect matches every CONNECT request that all of the matchers match.
func anyConnect(headers ...*routev3.HeaderMatcher) *routev3.RouteMatch {
	return &routev3.RouteMatch{
		PathSpecifier: &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}},
		Headers:       headers,
	}
}

// anyPath matches every request but CONNECT that all of the matchers match.
func anyPath(headers ...*routev3.HeaderMatcher) *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}, Headers: headers}
}

// forward sends matching requests to the cluster of their destination, with
// the upgrade that the client asked for.
func forward(match *routev3.RouteMatch) *routev3.Route {
	return &routev3.Route{
		Match: match,
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_ClusterHeader{ClusterHeader: destinationHeader},
			Timeout:          durationpb.New(0),
			RetryPolicy:      retries(),
		}},
		RequestHeadersToAdd: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: "upgrade", Value: "%REQ(" + upgradeHeader + ")%"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS,
		}},
	}
}

// refuse answers matching requests as malformed, as RFC 9112 asks for.
func refuse(match *routev3.RouteMatch) *routev3.Route {
	const badRequest = 400
	return &routev3.Route{
		Match:  match,
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: badRequest}},
	}
}

// retries repeats only requests that can't have reached a server, on another
// backend if there is one.
func retries() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:    "connect-failure,refused-stream,reset-before-request",
		NumRetries: wrapperspb.UInt32(3),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: pack(&previousv3.PreviousHostsPredicate{})},
		}},
		HostSelectionRetryMaxAttempts: 5,
		RetryBackOff: &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: durationpb.New(5 * time.Millisecond),
			MaxInterval:  durationpb.New(50 * time.Millisecond),
		},
	}
}
