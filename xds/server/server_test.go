// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

func TestOnDisconnect(t *testing.T) {
	ended := make(chan struct{}, 10)
	s, stop := startServer(t, OnDisconnect(func() { ended <- struct{}{} }))
	s.Publish(xdstest.Node(), nil)
	one, two := connect(t, s), connect(t, s)
	eventually(t, func() error {
		if n := s.Status().Streams; n != 2 {
			return fmt.Errorf("%d streams", n)
		}
		return nil
	})
	one.close()
	eventually(t, func() error {
		if n := s.Status().Streams; n != 1 {
			return fmt.Errorf("%d streams", n)
		}
		return nil
	})
	if len(ended) != 0 {
		t.Error("called while one is left")
	}
	two.close()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("not called after the last")
	}
	connect(t, s)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if len(ended) != 0 {
		t.Error("called because the server stopped")
	}
}

// TestChanged: whoever waits for a change is told of each.
func TestChanged(t *testing.T) {
	s, _ := startServer(t)
	told := func(what string) {
		t.Helper()
		select {
		case <-s.Changed():
		case <-time.After(5 * time.Second):
			t.Fatalf("not told of %s", what)
		}
	}
	s.Publish(xdstest.Node(), nil)
	c := connect(t, s)
	told("a connection")
	c.subscribe(xds.KindListener, nil)
	c.ack(c.next(), "")
	told("an acceptance")
	c.subscribe(xds.KindRoute, nil, xds.RouteName)
	c.ack(c.next(), "bad")
	told("a refusal")
	c.close()
	told("the end")
}

// TestUnservedKinds: what is never served is never answered, and harms nothing.
func TestUnservedKinds(t *testing.T) {
	s, _ := startServer(t)
	s.Publish(xdstest.Node(), nil)
	c := connect(t, s)
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", ResourceNamesSubscribe: []string{"x"}})
	c.silent()
}

func TestNothingIsLeftRunning(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, stop := startServer(t)
	s.Publish(xdstest.Node(xdstest.Web("10.244.1.1")), nil)
	c := connect(t, s)
	c.ready(s)
	if err := stop(); err != nil {
		t.Error(err)
	}
	c.close()
	for range c.inbox {
	}
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	if _, err := New(xds.Config{}, zap.NewNop()); err == nil {
		t.Error("an empty configuration is taken")
	}
}
