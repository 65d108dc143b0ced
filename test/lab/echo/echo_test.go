// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuestionRoundTrip(t *testing.T) {
	for _, want := range []question{{}, {size: 7}, {delay: time.Second}, {size: 1024, delay: 20 * time.Millisecond}} {
		got, err := parseQuestion(want.String())
		if err != nil || got != want {
			t.Errorf("question %+v came back as %+v, %v", want, got, err)
		}
	}
	for _, bad := range []string{"size=x", "delay=x", "%zz"} {
		if _, err := parseQuestion(bad); err == nil {
			t.Errorf("question %q was understood", bad)
		}
	}
}

func TestQuantile(t *testing.T) {
	var values []time.Duration
	for i := range 100 {
		values = append(values, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v of 1 to 100 is %d, want %d", q, got, want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("quantile of nothing is %d", got)
	}
}

// listen serves on a loopback address of its own and returns it.
func listen(t *testing.T, serve func(net.Listener)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go serve(listener)
	return listener.Addr().String()
}

// TestProtocols has each client talk to the server of its protocol.
func TestProtocols(t *testing.T) {
	s := &server{pod: "ns/pod", node: "node"}
	for protocol, serve := range map[string]func(net.Listener) error{
		HTTP10: s.serveHTTP, HTTP1: s.serveHTTP, H2C: s.serveHTTP, GRPC: s.serveGRPC, GRPCStream: s.serveGRPC, TCP: s.serveTCP,
	} {
		t.Run(protocol, func(t *testing.T) {
			addr := listen(t, func(l net.Listener) { _ = serve(l) })
			for fresh, connections := range map[bool]int{false: 1, true: 10} {
				if protocol == HTTP10 {
					connections = 10
				}
				got, err := Run(t.Context(), Spec{Protocol: protocol, Target: addr, Requests: 10, Fresh: fresh, Size: 100})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(map[string]int{"ns/pod": 10}, got.Pods); diff != "" || got.Failed > 0 {
					t.Errorf("fresh %v: -want +got pods:\n%s%v", fresh, diff, got.Errors)
				}
				if got.Connections != connections {
					t.Errorf("fresh %v: %d connections, want %d", fresh, got.Connections, connections)
				}
			}
		})
	}
}

// TestFailuresCount has a server that accepts, reads and hangs up: each request
// is to fail, and each is to be tried once only.
func TestFailuresCount(t *testing.T) {
	for _, protocol := range []string{HTTP10, HTTP1, H2C, GRPC, GRPCStream, TCP} {
		t.Run(protocol, func(t *testing.T) {
			addr := listen(t, func(l net.Listener) {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = io.CopyN(io.Discard, conn, 1)
					conn.Close()
				}
			})
			got, err := Run(t.Context(), Spec{Protocol: protocol, Target: addr, Requests: 5, Timeout: 5 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if got.Failed != 5 || len(got.Pods) > 0 {
				t.Errorf("%d of 5 requests failed", got.Failed)
			}
		})
	}
}

// TestRate wants a run at a rate to last as long as its requests take.
func TestRate(t *testing.T) {
	s := &server{pod: "ns/pod"}
	addr := listen(t, func(l net.Listener) { _ = s.serveTCP(l) })
	got, err := Run(t.Context(), Spec{Protocol: TCP, Target: addr, Requests: 21, Rate: 100, Connections: 2})
	if err != nil {
		t.Fatal(err)
	}
	// The first is due at once, the last 200 ms later.
	if got.Elapsed < 200*time.Millisecond || got.Requests != 21 {
		t.Errorf("%d requests at 100 per second took %s", got.Requests, got.Elapsed)
	}
}

// TestBusyClientCountsWaiting has one connection for more requests than its
// slow server can answer: the wait for the connection is part of the latency.
func TestBusyClientCountsWaiting(t *testing.T) {
	s := &server{pod: "ns/pod"}
	addr := listen(t, func(l net.Listener) { _ = s.serveTCP(l) })
	got, err := Run(t.Context(), Spec{Protocol: TCP, Target: addr, Requests: 10, Rate: 1000, Delay: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if got.Max < 150*time.Millisecond {
		t.Errorf("the last of 10 requests of 20 ms, all due at once, took %s", got.Max)
	}
}

func TestRunNeedsAnEnd(t *testing.T) {
	if _, err := Run(context.WithoutCancel(t.Context()), Spec{Protocol: TCP, Target: "127.0.0.1:1"}); err == nil {
		t.Error("a run without an end was accepted")
	}
}

// TestOutliersAreListed has requests that are slower than the spec calls slow.
func TestOutliersAreListed(t *testing.T) {
	s := &server{pod: "ns/pod"}
	addr := listen(t, func(l net.Listener) { _ = s.serveTCP(l) })
	for slow, want := range map[time.Duration]int{0: 0, time.Minute: 0, time.Millisecond: 3} {
		spec := Spec{Protocol: TCP, Target: addr, Requests: 3, Delay: 5 * time.Millisecond, Slow: slow}
		got, err := Run(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Outliers) != want {
			t.Errorf("slow is %s: %d outliers, want %d", slow, len(got.Outliers), want)
		}
	}
}

// TestEndingServerFinishes ends a server that works on a request: the answer
// comes, and then nobody listens any more.
func TestEndingServerFinishes(t *testing.T) {
	ending, served := make(chan struct{}), make(chan error, 1)
	s := &server{pod: "ns/pod", ending: ending}
	addr := listen(t, func(l net.Listener) { served <- s.serveHTTP(l) })
	c, err := dialHTTP1(t.Context(), Spec{Protocol: HTTP1, Target: addr, Delay: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	limit, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	time.AfterFunc(100*time.Millisecond, func() { close(ending) })
	if _, err := c.do(limit); err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	if _, err := dialHTTP1(t.Context(), Spec{Protocol: HTTP1, Target: addr}); err == nil {
		t.Error("a server that has ended takes connections")
	}
}
