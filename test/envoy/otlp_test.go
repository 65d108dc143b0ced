// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// collector is a server of OTLP that keeps what it gets. The messages of its services
// have the encoding of those of a file.
type collector struct {
	address string
	server  *grpc.Server
	mu      sync.Mutex
	spans   []*tracev1.ResourceSpans
	logs    []*logsv1.ResourceLogs
}

// newCollector serves at the address; port 0 is for any.
func newCollector(t *testing.T, address string) *collector {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{address: listener.Addr().String()}
	c.server = grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		traces, logs := &tracev1.TracesData{}, &logsv1.LogsData{}
		var into proto.Message = traces
		if method == "/opentelemetry.proto.collector.logs.v1.LogsService/Export" {
			into = logs
		}
		if err := stream.RecvMsg(into); err != nil {
			return err
		}
		c.mu.Lock()
		c.spans = append(c.spans, traces.GetResourceSpans()...)
		c.logs = append(c.logs, logs.GetResourceLogs()...)
		c.mu.Unlock()
		return stream.SendMsg(&emptypb.Empty{})
	}))
	done := make(chan error, 1)
	go func() { done <- c.server.Serve(listener) }()
	t.Cleanup(func() {
		c.server.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return c
}

// spanOf is a span and what it is of.
type spanOf struct {
	resource map[string]string
	span     *tracev1.Span
}

// allSpans are those that came so far.
func (c *collector) allSpans() []spanOf {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []spanOf
	for _, r := range c.spans {
		for _, scope := range r.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				out = append(out, spanOf{texts(r.GetResource().GetAttributes()), span})
			}
		}
	}
	return out
}

// hasSpans says whether as many have come.
func (c *collector) hasSpans(n int) error {
	if got := len(c.allSpans()); got != n {
		return fmt.Errorf("the collector has %d spans, want %d", got, n)
	}
	return nil
}

// recordOf is a record of a log, by its attributes, and what it is of.
type recordOf struct {
	resource, attributes map[string]string
	body                 string
}

// records are those that came so far.
func (c *collector) records() []recordOf {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []recordOf
	for _, r := range c.logs {
		for _, scope := range r.GetScopeLogs() {
			for _, record := range scope.GetLogRecords() {
				out = append(out, recordOf{
					texts(r.GetResource().GetAttributes()), texts(record.GetAttributes()), record.GetBody().GetStringValue(),
				})
			}
		}
	}
	return out
}

// texts are attributes whose values are text.
func texts(attributes []*commonv1.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range attributes {
		out[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return out
}

// byteServer answers each byte with the same.
func byteServer(t *testing.T, address string) string {
	t.Helper()
	return serveTCP(t, address, func(c net.Conn) {
		_, _ = io.Copy(c, c) // The client sees what is missing.
	})
}

// newSilentServer accepts connections and never answers.
func newSilentServer(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// The kernel accepts them.
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}
