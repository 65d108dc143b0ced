// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/flows"
	"github.com/nodevoy/nodevoy/xds/server"
)

// flowLog collects what Envoy sends.
type flowLog struct {
	mu   sync.Mutex
	node *model.Node
	all  []flow.Flow
}

func (l *flowLog) add(flows []flow.Flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	namer := flow.NewNamer(l.node)
	for _, f := range flows {
		namer.Name(&f)
		l.all = append(l.all, f)
	}
}

// take waits for so many flows, and returns those that came, in the order of their
// beginning.
func (l *flowLog) take(t *testing.T, n int) []flow.Flow {
	t.Helper()
	var out []flow.Flow
	eventually(t, 5*time.Second, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.all) < n {
			return fmt.Errorf("%d flows came, want %d: %+v", len(l.all), n, l.all)
		}
		out, l.all = l.all, nil
		return nil
	})
	slices.SortFunc(out, func(a, b flow.Flow) int { return a.Time.Compare(b.Time) })
	return out
}

// flowFixture is an Envoy that sends its flows to a log.
func flowFixture(t *testing.T, in mode) (*fixture, *flowLog) {
	t.Helper()
	web := webServer(t, "10.244.0.1:8080", "web-0")
	broken := h2Server(t, "10.244.0.4:8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "grpc-status")
		w.WriteHeader(http.StatusOK)
		w.Header().Set("grpc-status", "14")
	}))
	node := nodeOf(t,
		service{"web", "10.96.1.10:80", []string{web}},
		service{"dead", "10.96.1.11:80", []string{"10.244.0.3:8080"}},
		service{"broken", "10.96.1.12:80", []string{broken}},
		service{"echo", "10.96.1.13:80", []string{echoServer(t, "10.244.0.5:8080", "echo-0")}},
		service{"db", "10.96.2.10:5000", []string{tcpServer(t, "10.244.0.2:5000", "db-0")}},
		service{"deaddb", "10.96.2.11:5000", []string{"10.244.0.3:5000"}},
		service{"auto", "10.96.3.10:80", []string{web}},
	)
	log := &flowLog{node: node}
	return newFixtureWith(t, node, setup{pods: in.pods, options: []server.Option{server.OnFlows(flows.Decoder{}, log.add)}}), log
}

// TestFlows: Envoy sends nothing until it is told to, then what failed, or all, and each
// flow says who called whom, what answered, and how it went.
func TestFlows(t *testing.T) { bothModes(t, testFlows) }

func testFlows(t *testing.T, in mode) {
	w, log := flowFixture(t, in)
	calls := func() {
		w.flowCall(t, in, "10.96.1.10:80", "/path?secret=1", http.StatusOK)
		w.flowCall(t, in, "10.96.1.11:80", "/", http.StatusServiceUnavailable)
		if _, err := converse(in.dial(t, "10.96.2.10:5000"), "hello"); err != nil {
			t.Fatal(err)
		}
		w.flowGRPC(t, in, "10.96.1.12:80", true)
		w.flowGRPC(t, in, "10.96.1.13:80", false)
		w.flowCall(t, in, "10.96.3.10:80", "/auto", http.StatusOK)
		c := in.dial(t, "10.96.1.10:80")
		if _, err := c.Write([]byte("\x00\x01no HTTP\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		c = in.dial(t, "10.96.2.11:5000")
		_, _ = io.ReadAll(c) // Closed by Envoy, in any way.
	}
	calls()
	w.server.SendFlows(xds.FlowShares{Failed: flow.All})
	w.awaitShares(t)
	calls()
	var got []string
	for _, f := range log.take(t, 4) {
		got = append(got, fmt.Sprint(f.Service, " ", f.Status, " ", f.GRPCStatus, " ", f.Flags))
	}
	want := []string{"shop/dead/main 503 -1 [UF URX]", "shop/broken/main 200 14 []", "shop/web/main 400 -1 [DPE]", "shop/deaddb/main 0 -1 [UF URX]"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("flows that failed (-want +got):\n%s", d)
	}
	w.server.SendFlows(xds.FlowShares{All: flow.All, Failed: flow.All})
	w.awaitShares(t)
	calls()
	checkFlows(t, in, log.take(t, 8))
}

// awaitShares waits until Envoy has what it was sent last.
func (r *fixture) awaitShares(t *testing.T) {
	t.Helper()
	eventually(t, 5*time.Second, func() error {
		st := r.server.Status()
		if k := st.Kinds[xds.KindRuntime]; k.Acks < k.Responses || !st.Settled {
			return fmt.Errorf("the runtime keys are not acknowledged: %+v", k)
		}
		return nil
	})
}

// flowCall makes a request with a trace id.
func (r *fixture) flowCall(t *testing.T, in mode, address, path string, want int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "web.shop"
	req.Header = http.Header{"X-Request-Id": {"r-1"}, "Traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}}
	resp, err := in.client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != want {
		t.Fatalf("%s: status %d, error %v", address, resp.StatusCode, err)
	}
}

// flowGRPC makes a call of gRPC.
func (r *fixture) flowGRPC(t *testing.T, in mode, address string, fails bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(in.dialGRPC(t, address)).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if fails != (err != nil) {
		t.Fatalf("gRPC to %s: %v", address, err)
	}
}

// checkFlows holds all flows of the calls against what is known of them.
func checkFlows(t *testing.T, in mode, got []flow.Flow) {
	t.Helper()
	source := flow.Peer{}
	if in.pods != nil {
		source = flow.Peer{Namespace: "shop", Pod: "pod-a", Workload: "pod-a"}
	}
	call := func(service string, f flow.Flow) flow.Flow {
		f.Source, f.Service = source, flow.Service{Namespace: "shop", Name: service, Port: "main"}
		if f.Attempts > 0 {
			f.Backend = flow.Peer{Namespace: "shop", Pod: service + "-0", Workload: service}
		}
		return f
	}
	curl := func(f flow.Flow) flow.Flow {
		f.Protocol, f.Method, f.Host, f.GRPCStatus = "HTTP/1.1", "GET", "web.shop", -1
		f.RequestID, f.TraceID = "r-1", "4bf92f3577b34da6a3ce929d0e0e4736"
		return f
	}
	const check = "/grpc.health.v1.Health/Check"
	refused := []flow.Flag{"UF", "URX"}
	want := []flow.Flow{
		call("web", curl(flow.Flow{Path: "/path", Status: 200, Attempts: 1, Detail: "via_upstream"})),
		call("dead", curl(flow.Flow{
			Path: "/", Status: 503, Attempts: 4, Flags: refused,
			Detail: "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
		})),
		call("db", flow.Flow{Protocol: "TCP", GRPCStatus: -1, Attempts: 1}),
		call("broken", flow.Flow{Protocol: "gRPC", Method: "POST", Path: check, Host: "10.96.1.12:80", Status: 200, GRPCStatus: 14, Attempts: 1, Detail: "via_upstream"}),
		call("echo", flow.Flow{Protocol: "gRPC", Method: "POST", Path: check, Host: "10.96.1.13:80", Status: 200, Attempts: 1, Detail: "via_upstream"}),
		call("auto", curl(flow.Flow{Path: "/auto", Status: 200, Attempts: 1, Detail: "via_upstream"})),
		call("web", flow.Flow{Protocol: "HTTP/1.1", Status: 400, GRPCStatus: -1, Flags: []flow.Flag{"DPE"}, Detail: "http1.codec_error"}),
		call("deaddb", flow.Flow{Protocol: "TCP", GRPCStatus: -1, Attempts: 3, Flags: refused}),
	}
	for i := range got {
		f := &got[i]
		if f.Origin != flow.OriginEnvoy || f.Time.IsZero() || f.Source.Address.Port() == 0 || f.Frontend.Port() == 0 || f.Duration <= 0 {
			t.Errorf("incomplete: %+v", *f)
		}
		if (f.Backend.Pod != "") != (f.Backend.Address.Port() != 0) || (f.Connect > 0) != (f.Backend.Pod != "" && f.Flags == nil) {
			t.Errorf("the backend's address or the time to connect to it: %+v", *f)
		}
		f.Source.Address, f.Backend.Address = source.Address, source.Address
	}
	// Times, sizes and addresses differ from run to run.
	measured := cmpopts.IgnoreFields(flow.Flow{}, "Time", "Origin", "Frontend", "Duration", "Connect", "FirstByte", "BytesSent", "BytesReceived", "Class", "ClassReason")
	if d := cmp.Diff(want, got, measured, cmpopts.EquateComparable(flow.Peer{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
