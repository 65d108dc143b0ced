// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/nodevoy/nodevoy/xds/server"
)

// TestOnlyTheGuiltyAreRefused: in a response with several resources, Envoy may
// refuse one in words that name it, or name another, or name none, and take over
// some of the others or none. Whichever it does, in the end it has all the others
// as they are now, and what it refuses is named.
func TestOnlyTheGuiltyAreRefused(t *testing.T) {
	web, db := webServer(t, "10.244.0.1:8080", "web"), tcpServer(t, "10.244.0.2:5000", "db")
	addresses := []string{"10.96.1.10:80", "10.96.1.11:80", "10.96.1.12:80"}
	const dbAddress = "10.96.2.10:5000"
	node := nodeOf(t, service{"a", addresses[0], []string{web}}, service{"b", addresses[1], []string{web}}, service{"c", addresses[2], []string{web}},
		service{"db", dbAddress, []string{db}})
	first := func(s string) bool { return s == http1+addresses[0] }
	firstTwo := func(s string) bool { return slices.Contains(addresses[:2], strings.TrimPrefix(s, http1)) }
	provided := func(c *clusterv3.Cluster) { c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED }
	for name, c := range map[string]struct {
		spoil func(name string, m proto.Message)
		// frontends are refused; others are what is refused besides.
		frontends []string
		others    func(server.Refused) bool
	}{
		"a cluster it can't make": {spoil: clusters(first, provided), frontends: addresses[:1]},
		"two of them":             {spoil: clusters(firstTwo, provided), frontends: addresses[:2]},
		"a cluster with a bad duration": {spoil: clusters(first, func(c *clusterv3.Cluster) {
			c.ConnectTimeout = durationpb.New(-1)
		}), frontends: addresses[:1]},
		"an invalid assignment": {spoil: assignments(first, func(a *endpointv3.ClusterLoadAssignment) {
			a.Endpoints[0].Priority = 200
		}), frontends: addresses[:1]},
		"an address by name": {spoil: assignments(first, func(a *endpointv3.ClusterLoadAssignment) {
			a.Endpoints[0].LbEndpoints[0].GetEndpoint().GetAddress().GetSocketAddress().Address = "example.com"
		}), frontends: addresses[:1]},
		"a listener it can't make": {
			spoil: badListener,
			others: func(r server.Refused) bool {
				return len(r.Listeners) == 1 && strings.HasPrefix(tcp4(r), "listener tcp-v4: ")
			},
		},
		"an invalid listener": {
			spoil: func(name string, m proto.Message) {
				if l, ok := m.(*listenerv3.Listener); ok && name == "tcp-v4" {
					l.MaxConnectionsToAcceptPerSocketEvent = wrapperspb.UInt32(0)
				}
			},
			others: func(r server.Refused) bool {
				return len(r.Listeners) == 1 && strings.HasPrefix(tcp4(r), "listener tcp-v4: ")
			},
		},
		"the routes": {
			spoil:  badRoutes,
			others: func(r server.Refused) bool { return strings.HasPrefix(r.Routes, "route http: ") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			var spoilt atomic.Bool
			timeouts := &connectTimeouts{}
			timeouts.millis.Store(1000)
			r := newFixtureWith(t, node, setup{options: []server.Option{server.Override(func(name string, m proto.Message) {
				timeouts.override(name, m)
				if l, ok := m.(*listenerv3.Listener); ok && spoilt.Load() {
					l.PerConnectionBufferLimitBytes = wrapperspb.UInt32(1 << 20) // All of them change.
				}
				if spoilt.Load() {
					c.spoil(name, m)
				}
			})}})
			for _, a := range addresses {
				mustGet(t, a, "web")
			}
			mustGreet(t, dbAddress, "db")
			spoilt.Store(true)
			timeouts.millis.Store(1001)
			r.server.Publish(node, nil)
			eventually(t, 3*time.Second, func() error {
				st := r.server.Status()
				if !st.Settled || !st.ListenersAcked || len(st.Refused.Frontends) != len(c.frontends) {
					return fmt.Errorf("want refused %v: %+v", c.frontends, st)
				}
				for _, a := range c.frontends {
					if st.Refused.Frontends[netip.MustParseAddrPort(a)] == "" {
						return fmt.Errorf("%s is not refused: %v", a, st.Refused)
					}
				}
				if c.others != nil && !c.others(st.Refused) || c.others == nil && len(st.Refused.Listeners)+len(st.Refused.Routes) > 0 {
					return fmt.Errorf("refused: %+v", st.Refused)
				}
				return nil
			})
			t.Logf("after %d refusals: %+v", r.server.Status().NackCount, r.server.Status().Refused)
			got := r.clusters()
			for _, a := range addresses {
				if slices.Contains(c.frontends, a) {
					continue
				}
				if timeout := got[http1+a]["connect_timeout"]; timeout != "1.001s" {
					t.Errorf("%s is not refused, and has not changed: %v", a, timeout)
				}
				mustGet(t, a, "web")
			}
			mustGreet(t, dbAddress, "db")
			spoilt.Store(false)
			timeouts.millis.Store(1002)
			r.server.Publish(node, nil)
			eventually(t, 3*time.Second, func() error {
				if st := r.server.Status(); !st.Settled || st.Refused.Any() {
					return fmt.Errorf("want nothing refused any more: %+v", st)
				}
				return nil
			})
		})
	}
}

// badRoutes spoils the routes.
func badRoutes(_ string, m proto.Message) {
	if routes, ok := m.(*routev3.RouteConfiguration); ok {
		routes.VirtualHosts = append(routes.VirtualHosts, routes.VirtualHosts[0])
	}
}

// tcp4 is why the listener of class tcp is refused.
func tcp4(r server.Refused) string {
	for key, why := range r.Listeners {
		if key.Class.String() == "tcp" && !key.V6 {
			return why
		}
	}
	return ""
}

// clusters spoils those of these names.
func clusters(these func(string) bool, spoil func(*clusterv3.Cluster)) func(string, proto.Message) {
	return func(name string, m proto.Message) {
		if c, ok := m.(*clusterv3.Cluster); ok && these(name) {
			spoil(c)
		}
	}
}

// assignments spoils those of these names.
func assignments(these func(string) bool, spoil func(*endpointv3.ClusterLoadAssignment)) func(string, proto.Message) {
	return func(name string, m proto.Message) {
		if a, ok := m.(*endpointv3.ClusterLoadAssignment); ok && these(name) {
			spoil(a)
		}
	}
}

// TestRefusedFromTheStart: an Envoy that has no earlier version of what it refuses
// serves what doesn't need it, and its other listeners answer the agent's probes.
func TestRefusedFromTheStart(t *testing.T) {
	const address = "10.96.2.10:5000"
	node := nodeOf(t, service{"db", address, []string{tcpServer(t, "10.244.0.2:5000", "db")}})
	ports := map[string]string{"tcp-v4": "23721", "http-v4": "23722", "detect-v4": "23723"}
	for refused, spoil := range map[string]func(string, proto.Message){
		"routes": badRoutes,
		"http-v4": func(name string, m proto.Message) {
			if l, ok := m.(*listenerv3.Listener); ok && name == "http-v4" {
				l.MaxConnectionsToAcceptPerSocketEvent = wrapperspb.UInt32(0)
			}
		},
	} {
		t.Run(refused, func(t *testing.T) {
			r := newFixtureWith(t, node, setup{unready: true, options: []server.Option{server.Override(spoil)}})
			eventually(t, 20*time.Second, func() error {
				st := r.server.Status()
				if !st.Settled || !st.ListenersAcked || !st.Refused.Any() {
					return fmt.Errorf("not settled: %+v", st)
				}
				return nil
			})
			for name, port := range ports {
				if err := probePort(&net.Dialer{}, listen4, port); (err != nil) != (name == refused) {
					t.Errorf("listener %s: %v", name, err)
				}
			}
			mustGreet(t, address, "db")
		})
	}
}
