// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

const webAddress, webName = "10.96.0.10:80", "HTTP/1.1 10.96.0.10:80"

// testConfig is a whole configuration, as an agent makes it.
func testConfig() xds.Config {
	cfg := xds.Default()
	cfg.NodeID = "node-a"
	cfg.Address4 = netip.MustParseAddr("169.254.64.15")
	cfg.Address6 = netip.MustParseAddr("fd6e:6f64:6576:6f79::15")
	cfg.Ports = model.Ports{TCP: 23721, HTTP: 23722, Detect: 23723}
	cfg.ClusterMemory = 0 // No bound: some tests have Envoy use 10,000 Services.
	return cfg
}

// podConfig is a whole configuration in pod mode.
func podConfig() xds.Config {
	cfg := testConfig()
	cfg.PodMode = true
	cfg.Address4, cfg.Address6 = netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	return cfg
}

// startServer runs a server on a socket of its own; stop ends it and returns
// what Run returned.
func startServer(t *testing.T, opts ...Option) (s *Server, stop func() error) {
	t.Helper()
	cfg := testConfig()
	cfg.Socket = filepath.Join(t.TempDir(), "xds.sock")
	return startAt(t, cfg, opts...)
}

func startAt(t *testing.T, cfg xds.Config, opts ...Option) (s *Server, stop func() error) {
	t.Helper()
	s, err := New(cfg, zap.NewNop(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	ended := false
	stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s, stop
}

// client is an Envoy as far as the server can tell.
type client struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	close  func()
	inbox  chan *discoveryv3.DeltaDiscoveryResponse
}

// connect waits for the socket and opens a stream.
func connect(t *testing.T, s *Server) *client {
	t.Helper()
	eventually(t, func() error { _, err := os.Lstat(s.cfg.Socket); return err })
	conn, err := grpc.NewClient("unix://"+s.cfg.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, stream: stream, inbox: make(chan *discoveryv3.DeltaDiscoveryResponse, 100)}
	c.close = func() { cancel(); _ = conn.Close() }
	t.Cleanup(c.close)
	go func() {
		defer close(c.inbox)
		for {
			resp, err := stream.Recv()
			if err != nil {
				return // The stream ended; who waits sees the closed channel.
			}
			c.inbox <- resp
		}
	}()
	eventually(t, func() error {
		if !s.Status().Connected {
			return errors.New("not connected")
		}
		return nil
	})
	return c
}

func (c *client) send(req *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	if err := c.stream.Send(req); err != nil {
		c.t.Fatal(err)
	}
}

// subscribe asks for names; held are the versions the client says it has.
func (c *client) subscribe(k xds.Kind, held map[string]string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: k.TypeURL(), ResourceNamesSubscribe: names, InitialResourceVersions: held})
}

// ack accepts a response, or refuses it if detail is not empty.
func (c *client) ack(resp *discoveryv3.DeltaDiscoveryResponse, detail string) {
	c.t.Helper()
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
	if detail != "" {
		req.ErrorDetail = &statuspb.Status{Message: detail}
	}
	c.send(req)
}

// next waits for a response.
func (c *client) next() *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	select {
	case resp, ok := <-c.inbox:
		if !ok {
			c.t.Fatal("the stream ended")
		}
		return resp
	case <-time.After(5 * time.Second):
		c.t.Fatal("no response")
	}
	return nil
}

// expect waits for a response of this kind, wants it to be this, and accepts it.
func (c *client) expect(k xds.Kind, added, removed []string) *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	resp := c.next()
	c.check(resp, k, added, removed)
	c.ack(resp, "")
	return resp
}

func (c *client) check(resp *discoveryv3.DeltaDiscoveryResponse, k xds.Kind, added, removed []string) {
	c.t.Helper()
	var names []string
	for _, r := range resp.GetResources() {
		names = append(names, r.GetName())
	}
	got := fmt.Sprint(resp.GetTypeUrl(), names, resp.GetRemovedResources())
	if want := fmt.Sprint(k.TypeURL(), added, removed); got != want {
		c.t.Fatalf("got %s, want %s", got, want)
	}
}

// silent wants no response. It proves it by a question whose answer is next.
func (c *client) silent() {
	c.t.Helper()
	probe := fmt.Sprintf("probe-%d", time.Now().UnixNano())
	c.subscribe(xds.KindRoute, nil, probe)
	c.expect(xds.KindRoute, nil, []string{probe})
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.Now().Add(5 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
		<-tick.C
	}
}

// ready answers all that an Envoy is sent when it starts.
func (c *client) ready(s *Server) {
	c.t.Helper()
	c.subscribe(xds.KindListener, nil)
	c.expect(xds.KindListener, []string{"detect-v4", "detect-v6", "http-v4", "http-v6", "tcp-v4", "tcp-v6"}, nil)
	c.subscribe(xds.KindRoute, nil, xds.RouteName)
	c.expect(xds.KindRoute, []string{xds.RouteName}, nil)
	eventually(c.t, func() error {
		if st := s.Status(); !st.Settled || !st.ListenersAcked {
			return fmt.Errorf("not settled: %+v", st)
		}
		return nil
	})
}
