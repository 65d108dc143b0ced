// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

// mode is where Envoy listens, and where its callers are.
type mode struct {
	// dialer connects as a caller does.
	dialer
	// pods are those that callers are in, none in host mode.
	pods []*pod
	// ports are those of the listeners, if not the usual ones.
	ports model.Ports
	// idle is how long connections to backends are kept unused, if set.
	idle time.Duration
}

// bothModes runs a test of what callers see in host mode and in pod mode. One
// comes after the other: their servers have the same addresses.
func bothModes(t *testing.T, test func(t *testing.T, in mode)) {
	t.Helper()
	t.Run("host", func(t *testing.T) { test(t, mode{dialer: &net.Dialer{}}) })
	t.Run("pod", func(t *testing.T) {
		p := newPod(t, "pod-a", 2)
		test(t, mode{dialer: p, pods: []*pod{p}})
	})
}

// fixture is newFixture in this mode.
func (m mode) fixture(t *testing.T, node *model.Node) *fixture {
	t.Helper()
	return newFixtureWith(t, node, setup{pods: m.pods, change: func(cfg *xds.Config) {
		if m.ports != (model.Ports{}) {
			cfg.Ports = m.ports
		}
		cfg.UpstreamIdle = cmp.Or(m.idle, cfg.UpstreamIdle)
	}})
}

// dial connects within 3 seconds, or fails the test.
func (m mode) dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	c, err := m.DialContext(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// client makes requests by HTTP/1.1, each on a connection of its own.
func (m mode) client() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: m.DialContext, DisableKeepAlives: true}}
}

// h2Client speaks HTTP/2 with prior knowledge.
func (m mode) h2Client() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: m.DialContext, Protocols: clearHTTP2()}}
}
