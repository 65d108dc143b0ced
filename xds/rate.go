// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	localv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// rateFilter is the name of the filter that limits the requests of each client, in the
// listeners and in the routes that configure it.
const rateFilter = "rate_limit"

// maxRateSources is of how many addresses Envoy remembers the requests, those of the
// latest requests: more than a node has pods.
const maxRateSources = 4096

// rateFilters is the filter of a listener that limits requests, if anything does. It is
// configured in the routes, which all listeners share, and with them one count.
func rateFilters(cfg Config) []*hcmv3.HttpFilter {
	if cfg.MaxRequestRate == 0 {
		return nil
	}
	return []*hcmv3.HttpFilter{httpFilter(rateFilter, &localv3.LocalRateLimit{StatPrefix: rateFilter})}
}

// limitRate adds the limit of requests to routes, and removes the header that it needs
// from what is sent upstream.
func limitRate(r *routev3.RouteConfiguration, cfg Config) {
	if cfg.MaxRequestRate == 0 {
		return
	}
	bucket := &typev3.TokenBucket{
		MaxTokens: cfg.MaxRequestRate, TokensPerFill: wrapperspb.UInt32(cfg.MaxRequestRate), FillInterval: durationpb.New(time.Second),
	}
	always := &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: 100}}
	r.TypedPerFilterConfig = map[string]*anypb.Any{rateFilter: pack(&localv3.LocalRateLimit{
		StatPrefix: rateFilter,
		// Only of requests that no descriptor matches, which there are none of.
		TokenBucket:                     bucket,
		AlwaysConsumeDefaultTokenBucket: wrapperspb.Bool(false),
		FilterEnabled:                   always,
		FilterEnforced:                  always,
		// An entry without a value is for each value by itself.
		Descriptors: []*ratelimitv3.LocalRateLimitDescriptor{{
			Entries:     []*ratelimitv3.RateLimitDescriptor_Entry{{Key: sourceHeader}},
			TokenBucket: bucket,
		}},
		RateLimits: []*routev3.RateLimit{{Actions: []*routev3.RateLimit_Action{{
			ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{
				HeaderName: sourceHeader, DescriptorKey: sourceHeader,
			}},
		}}}},
		MaxDynamicDescriptors:          wrapperspb.UInt32(maxRateSources),
		RateLimitedAsResourceExhausted: true,
	})}
	for _, host := range r.VirtualHosts {
		host.RequestHeadersToRemove = append(host.RequestHeadersToRemove, sourceHeader)
	}
}
