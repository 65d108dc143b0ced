// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// healthPath is the only path that the health listener answers.
	healthPath = "/healthz"
	// HealthListener is the name of the health listener, in Envoy's statistics too.
	HealthListener = "health"
	// healthTimeout bounds a request to the health listener, so that a client
	// that hangs doesn't hold its connection for ever.
	healthTimeout = 10 * time.Second
	// killTimeout is how long a thread of Envoy may make no progress before Envoy
	// aborts. It is far above the longest task of a thread, which is to take in a
	// large configuration, and low enough for a restart within a minute.
	killTimeout = 20 * time.Second
)

// healthListener answers health checks on a unix socket. It is static, so it
// doesn't need the agent, and a worker thread serves it, as it does pods'
// connections. It answers also while Envoy drains, or has as many connections as
// it takes: a restart would cut those.
func healthListener(cfg Config) *listenerv3.Listener {
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix:            HealthListener,
		RequestTimeout:        durationpb.New(healthTimeout),
		RequestHeadersTimeout: durationpb.New(healthTimeout),
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name: HealthListener,
			VirtualHosts: []*routev3.VirtualHost{{Name: HealthListener, Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: healthPath}},
				Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200, Body: inline("ok\n")}},
			}}}},
		}},
		HttpFilters: []*hcmv3.HttpFilter{httpFilter("router", pack(&routerv3.Router{}))},
	}
	return &listenerv3.Listener{
		Name:                  HealthListener,
		StatPrefix:            HealthListener,
		Address:               pipe(cfg.HealthSocket, ownerOnly),
		TrafficDirection:      corev3.TrafficDirection_INBOUND,
		IgnoreGlobalConnLimit: true,
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{
			networkFilter("http", pack(manager)),
		}}},
	}
}

// watchdogs make Envoy abort, so that kubelet restarts it, when the main thread
// or a single worker hangs. The health listener doesn't show that: any other
// worker answers there.
func watchdogs() *bootstrapv3.Watchdogs {
	dog := &bootstrapv3.Watchdog{KillTimeout: durationpb.New(killTimeout)}
	return &bootstrapv3.Watchdogs{MainThreadWatchdog: dog, WorkerWatchdog: dog}
}
