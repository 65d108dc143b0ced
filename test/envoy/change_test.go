// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds/server"
)

// connectTimeouts lets a test change the connect timeout of all clusters.
type connectTimeouts struct{ millis atomic.Int64 }

func (c *connectTimeouts) override(_ string, m proto.Message) {
	if cluster, ok := m.(*clusterv3.Cluster); ok {
		cluster.ConnectTimeout = durationpb.New(time.Duration(c.millis.Load()) * time.Millisecond)
	}
}

// TestClusterOnlyChange: a cluster that changes while its endpoints do not is
// live within a second. Envoy keeps it back until an assignment comes, for
// which it would wait 15 s.
func TestClusterOnlyChange(t *testing.T) {
	web := webServer(t, "10.244.0.1:8080", "web-0")
	const address = "10.96.1.10:80"
	node := nodeOf(t, service{"web", address, []string{web}})
	timeouts := &connectTimeouts{}
	timeouts.millis.Store(1000)
	r := newFixtureWith(t, node, setup{options: []server.Option{server.Override(timeouts.override)}})
	mustGet(t, address, "web-0")
	for i := range 5 {
		millis := int64(2001 + i)
		timeouts.millis.Store(millis)
		r.server.Publish(node, nil)
		want := fmt.Sprintf("%.3fs", float64(millis)/1000)
		took := eventually(t, time.Second, func() error {
			if got := r.clusters()[http1+address]["connect_timeout"]; got != want {
				return fmt.Errorf("connect timeout %v, want %s", got, want)
			}
			return nil
		})
		t.Logf("live after %v", took)
		mustGet(t, address, "web-0")
	}
	// The belt did not have to hold.
	if n := r.stat("cluster.shop/web/main.init_fetch_timeout"); n != 0 {
		t.Errorf("Envoy waited for endpoints %d times until it had enough", n)
	}
}

// TestClusterOnlyChangeWhileAway is the same by an agent that comes back with
// another configuration.
func TestClusterOnlyChangeWhileAway(t *testing.T) {
	web := webServer(t, "10.244.0.1:8080", "web-0")
	node := nodeOf(t, service{"web", "10.96.1.10:80", []string{web}}, service{"other", "10.96.1.11:80", []string{web}})
	r := newFixture(t, node)
	mustGet(t, "10.96.1.10:80", "web-0")
	mustGet(t, "10.96.1.11:80", "web-0")
	for i := range 5 {
		r.stop()
		r.cfg.ConnectTimeout = time.Duration(2001+i) * time.Millisecond
		r.serve(node)
		want := fmt.Sprintf("%.3fs", r.cfg.ConnectTimeout.Seconds())
		eventually(t, 5*time.Second, func() error {
			if !r.server.Status().Connected {
				return errors.New("not connected")
			}
			return nil
		})
		took := eventually(t, time.Second, func() error {
			for name, c := range r.clusters() {
				if got := c["connect_timeout"]; got != want {
					return fmt.Errorf("connect timeout of %s is %v, want %s", name, got, want)
				}
			}
			return nil
		})
		t.Logf("live %v after Envoy is back", took)
	}
	if n := r.stat("cluster.shop/web/main.init_fetch_timeout"); n != 0 {
		t.Errorf("Envoy waited for endpoints %d times until it had enough", n)
	}
}

// TestEndpointsChange: a change of endpoints is live at once.
func TestEndpointsChange(t *testing.T) {
	const address = "10.96.1.10:80"
	names := []string{"one", "two"}
	var backends []string
	for i, name := range names {
		backends = append(backends, webServer(t, fmt.Sprintf("10.244.0.%d:8080", i+1), name))
	}
	r := newFixture(t, nodeOf(t, service{"web", address, backends[:1]}))
	mustGet(t, address, names[0])
	var worst time.Duration
	for i := range 20 {
		k := (i + 1) % 2
		r.server.Publish(nodeOf(t, service{"web", address, backends[k : k+1]}), nil)
		worst = max(worst, eventually(t, 500*time.Millisecond, func() error { return wants(address, names[k]) }))
	}
	t.Logf("live after at most %v in 20 changes", worst)
}

// TestEndpointsAndClusterChange changes both again and again, faster than Envoy
// answers: it ends with what was published last, and at no time fails.
func TestEndpointsAndClusterChange(t *testing.T) {
	const address = "10.96.1.10:80"
	one, two := webServer(t, "10.244.0.1:8080", "one"), webServer(t, "10.244.0.2:8080", "two")
	timeouts := &connectTimeouts{}
	timeouts.millis.Store(1000)
	r := newFixtureWith(t, nodeOf(t, service{"web", address, []string{one}}), setup{options: []server.Option{server.Override(timeouts.override)}})
	mustGet(t, address, "one")
	load := startLoad(t, address)
	for i := range 200 {
		timeouts.millis.Add(1)
		r.server.Publish(nodeOf(t, service{"web", address, []string{one, two}[i%2 : i%2+1]}), nil)
	}
	took := eventually(t, 2*time.Second, func() error {
		if got := r.clusters()[http1+address]["connect_timeout"]; got != "1.200s" {
			return fmt.Errorf("connect timeout %v, want 1.200s", got)
		}
		return wants(address, "two")
	})
	t.Logf("the last of 200 changes is live after %v", took)
	load.stop(t)
	if n := r.stat("cluster.shop/web/main.init_fetch_timeout"); n != 0 {
		t.Errorf("Envoy waited for endpoints %d times until it had enough", n)
	}
}

// badListener makes one listener something Envoy refuses.
func badListener(name string, m proto.Message) {
	if l, ok := m.(*listenerv3.Listener); ok && name == "tcp-v4" {
		l.FilterChains = append(l.FilterChains, l.FilterChains...)
	}
}

// TestRefusedCluster: a cluster Envoy refuses leaves the one before in force,
// is counted and shown once, is not sent again at once, and does not stand in
// the way of other changes or of a later good one.
func TestRefusedCluster(t *testing.T) {
	web := webServer(t, "10.244.0.1:8080", "web-0")
	const address, other = "10.96.1.10:80", "10.96.1.11:80"
	node := nodeOf(t, service{"web", address, []string{web}}, service{"other", other, []string{web}})
	var bad atomic.Bool
	r := newFixtureWith(t, node, setup{options: []server.Option{server.Override(func(name string, m proto.Message) {
		if c, ok := m.(*clusterv3.Cluster); ok && name == http1+address && bad.Load() {
			c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED // Not for a cluster of this type.
		}
	})}})
	mustGet(t, address, "web-0")
	bad.Store(true)
	r.server.Publish(node, nil)
	eventually(t, time.Second, func() error {
		if st := r.server.Status(); st.NackCount != 1 || !st.Settled || st.Refused.Frontends[netip.MustParseAddrPort(address)] == "" {
			return fmt.Errorf("not refused: %+v", st)
		}
		return nil
	})
	nack := r.server.Status().Nacks[0]
	if nack.Type != "cluster" || len(nack.Names) != 1 || nack.Names[0] != http1+address || !strings.Contains(nack.Detail, address) {
		t.Errorf("refusal shown as %+v", nack)
	}
	for range 10 {
		r.server.Publish(node, nil)
		mustGet(t, address, "web-0")
		mustGet(t, other, "web-0")
	}
	if st := r.server.Status(); st.NackCount != 1 || !st.ListenersAcked || !st.Settled {
		t.Errorf("after ten more rounds: %+v", st)
	}
	bad.Store(false)
	r.server.Publish(node, nil)
	eventually(t, time.Second, func() error {
		if st := r.server.Status(); !st.Settled {
			return fmt.Errorf("not settled: %+v", st)
		}
		return wants(address, "web-0")
	})
}

// TestRefusedListener: a listener that is refused keeps the one before, and is
// not taken for accepted.
func TestRefusedListener(t *testing.T) {
	db := tcpServer(t, "10.244.0.2:5000", "db-0")
	const address = "10.96.2.10:5000"
	node := nodeOf(t, service{"db", address, []string{db}})
	var bad atomic.Bool
	r := newFixtureWith(t, node, setup{options: []server.Option{server.Override(func(name string, m proto.Message) {
		if bad.Load() {
			badListener(name, m)
		}
	})}})
	mustGreet(t, address, "db-0")
	bad.Store(true)
	r.server.Publish(node, nil)
	eventually(t, time.Second, func() error {
		st := r.server.Status()
		if st.NackCount != 1 || st.Refused.Listeners[server.ListenerKey{Class: model.ClassTCP}] == "" || !st.Settled {
			return fmt.Errorf("want one refusal, settled and named: %+v", st)
		}
		return nil
	})
	mustGreet(t, address, "db-0")
	bad.Store(false)
	r.server.Publish(node, nil)
	eventually(t, time.Second, func() error {
		if st := r.server.Status(); !st.ListenersAcked || !st.Settled || st.Refused.Any() || st.NackCount != 1 {
			return fmt.Errorf("want accepted: %+v", st)
		}
		return nil
	})
}
