// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"encoding/hex"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

// tracer is a raw server that is called through an Envoy which traces.
type tracer struct {
	in      mode
	server  *rawServer
	fixture *fixture
}

// newTracer traces a share of the requests of both modes' callers.
func newTracer(t *testing.T, in mode, endpoint string, share model.Share) *tracer {
	t.Helper()
	server := newRawServer(t, "10.244.0.1:8080")
	node := nodeOf(t, service{"web", "10.96.1.10:80", []string{server.address()}}, service{"auto", "10.96.3.10:80", []string{server.address()}})
	f := newFixtureWith(t, node, setup{pods: in.pods, change: func(c *xds.Config) { c.OTLPEndpoint, c.Tracing = endpoint, share }})
	return &tracer{in: in, server: server, fixture: f}
}

// call makes a request with these headers, and returns what the server sees of it. sees
// is about how long that is.
func (r *tracer) call(t *testing.T, address, headers string, sees int) string {
	t.Helper()
	request := "GET /a HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n"
	e := exchange{from: r.in, request: request, response: answer, wantSeen: len(request) + sees, wantGot: len(answer)}
	seen, got := e.over(t, address, r.server, func() {})
	if strings.TrimSuffix(strings.Replace(got, "Connection: close\r\n", "", 1), "[EOF]") != answer {
		t.Errorf("%s: the client sees %q", address, got)
	}
	return seen
}

// traceContext is what is added to a request that is traced, by the name of its trace.
func traceContext(trace string) string {
	return "Traceparent: 00-" + trace + "-" + strings.Repeat("0", 16) + "-01\r\n"
}

// TestTracingKeepsContext: with tracing on, a request that isn't traced arrives as it was
// sent, whatever its context says.
func TestTracingKeepsContext(t *testing.T) {
	bothModes(t, func(t *testing.T, in mode) {
		r := newTracer(t, in, newCollector(t, "127.0.0.1:0").address, 1)
		for _, headers := range []string{
			"",
			"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\ntracestate: a=b\r\n",
			"Traceparent: nonsense\r\n",
			"traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\n",
			"traceparent: 00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01\r\n",
			"traceparent: 00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01\r\n",
			"traceparent: ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x\r\n",
			"tracestate: a=b\r\nX-Request-Id: 0af76519-16cd-43dd-8448-eb211c80319c\r\n",
			"X-Client-Trace-Id: q\r\nX-Envoy-Force-Trace: true\r\nConnection: close\r\n",
			"X-B3-TraceId: 0af7651916cd43dd8448eb211c80319c\r\nX-B3-SpanId: b7ad6b7169203331\r\nX-B3-Sampled: 1\r\n",
		} {
			for _, address := range []string{"10.96.1.10:80", "10.96.3.10:80"} {
				want := "GET /a HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n"
				if seen := r.call(t, address, headers, 0); seen != want {
					t.Errorf("%s: the server sees\n%q, want\n%q", address, seen, want)
				}
			}
		}
	})
}

// TestTracing: of a request that is traced, the collector gets a span with the names of
// both sides, and the server a context with the ids of that span. A trace that the client
// began goes on.
func TestTracing(t *testing.T) {
	bothModes(t, func(t *testing.T, in mode) {
		c := newCollector(t, "127.0.0.1:0")
		r := newTracer(t, in, c.address, model.Whole)
		const theirs = "0af7651916cd43dd8448eb211c80319c"
		parent := regexp.MustCompile(`(?i)\r\ntraceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-01\r\n`)
		var spans []string
		for i, headers := range []string{
			"",
			"traceparent: 00-" + theirs + "-b7ad6b7169203331-01\r\ntracestate: a=b\r\n",
			"Connection: close\r\n",
		} {
			added := len(traceContext(theirs))
			if i == 1 {
				added = 0
			}
			seen := r.call(t, []string{"10.96.1.10:80", "10.96.3.10:80"}[i%2], headers, added)
			found := parent.FindStringSubmatch(seen)
			if found == nil {
				t.Fatalf("the server sees no context: %q", seen)
			}
			if i == 1 && (found[1] != theirs || found[2] == "b7ad6b7169203331" || !strings.Contains(seen, "\r\ntracestate: a=b\r\n")) {
				t.Errorf("of the client's trace the server sees %q", seen)
			}
			if n := len(parent.FindAllString(seen, -1)); n != 1 || i != 1 && strings.Contains(strings.ToLower(seen), "tracestate") {
				t.Errorf("the server sees %q", seen)
			}
			spans = append(spans, found[1]+"/"+found[2])
		}
		eventually(t, 15*time.Second, func() error { return c.hasSpans(len(spans)) })
		service := "shop/web/main"
		wantResource := map[string]string{"service.name": "nodevoy", "k8s.node.name": "node-a"}
		if in.pods != nil {
			wantResource = map[string]string{
				"service.name": "client", "k8s.node.name": "node-a", "k8s.namespace.name": "shop", "k8s.pod.name": "pod-a", "k8s.pod.uid": "uid-pod-a",
			}
		}
		for i, got := range c.allSpans() {
			if !slices.Contains(spans, hex.EncodeToString(got.span.GetTraceId())+"/"+hex.EncodeToString(got.span.GetSpanId())) {
				t.Errorf("span %d is of none of the requests: %v", i, got.span)
			}
			for key, want := range wantResource {
				if got.resource[key] != want {
					t.Errorf("%s is %q, want %q", key, got.resource[key], want)
				}
			}
			attributes := texts(got.span.GetAttributes())
			if attributes["nodevoy.service"] == "shop/auto/main" {
				service = "shop/auto/main"
			}
			want := map[string]string{
				"nodevoy.service": service, "nodevoy.backend.pod": strings.TrimSuffix(service, "/main") + "-0", "nodevoy.backend.workload": strings.Split(service, "/")[1],
				"http.method": "GET", "http.status_code": "200",
			}
			kept := map[string]string{}
			for key := range want {
				kept[key] = attributes[key]
			}
			if diff := cmp.Diff(want, kept); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
			service = "shop/web/main"
		}
	})
}

// TestCollectorDown: neither a collector that refuses connections, nor one that takes
// them and never answers, nor a name that doesn't exist, delays the start or a request,
// or ends one; what it doesn't take is dropped.
func TestCollectorDown(t *testing.T) {
	silent := newSilentServer(t)
	for name, endpoint := range map[string]string{
		"refuses": "127.0.0.1:9", "never answers": silent, "no such name": "collector.nowhere.invalid:4317",
	} {
		t.Run(name, func(t *testing.T) {
			web := webServer(t, "10.244.0.1:8080", "web-0")
			start := time.Now()
			f := newFixtureWith(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{web}}), setup{change: func(c *xds.Config) {
				c.OTLPEndpoint, c.Tracing, c.AccessLogOTLP = endpoint, model.Whole, true
			}})
			if took := time.Since(start); took > 15*time.Second {
				t.Errorf("the start took %v", took)
			}
			const calls = 300
			slowest := time.Duration(0)
			for range calls {
				start := time.Now()
				mustGet(t, "10.96.1.10:80", "web-0")
				slowest = max(slowest, time.Since(start))
			}
			t.Logf("the slowest of %d calls took %v", calls, slowest)
			if slowest > 2*time.Second {
				t.Errorf("a call took %v", slowest)
			}
			f.accessLog(calls)
			eventually(t, 15*time.Second, func() error {
				if f.stat("tracing.opentelemetry.spans_sent")+f.stat("tracing.opentelemetry.spans_dropped") == 0 {
					return errors.New("no span was sent or dropped yet")
				}
				return nil
			})
			if n := f.stat("cluster.otlp.upstream_rq_active"); n > 128 {
				t.Errorf("%d requests to the collector wait", n)
			}
		})
	}
}
