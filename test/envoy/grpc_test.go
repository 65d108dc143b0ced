// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func clearHTTP2() *http.Protocols {
	p := &http.Protocols{}
	p.SetUnencryptedHTTP2(true)
	return p
}

// TestHTTP2 sends headers, trailers and bodies by HTTP/2, and sees that they
// arrive as HTTP/2, on both listeners that know it.
func TestHTTP2(t *testing.T) { bothModes(t, testHTTP2) }

func testHTTP2(t *testing.T, in mode) {
	seen := make(chan *http.Request, 16)
	address := h2Server(t, "10.244.0.1:8080", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body) // Reads the trailers, too.
		seen <- req
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("Date", "x")
		w.Header()["Server"] = []string{"mine"}
		_, _ = io.WriteString(w, "hi")
		w.Header().Set("X-Sum", "1")
	}))
	in.fixture(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{address}}, service{"auto", "10.96.3.10:80", []string{address}}))
	client := in.h2Client()
	for _, frontend := range []string{address, "10.96.1.10:80", "10.96.3.10:80"} {
		// Envoy 1.40 answers 503 to a request that is the first to its Service
		// and has trailers: its on_demand filter does not hold them back.
		if err := once(client, frontend); err != nil {
			t.Fatal(err)
		}
		<-seen
		req, err := http.NewRequest(http.MethodPost, "http://"+frontend+"//a/../b%2f?x=y", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "web.shop"
		req.Header = http.Header{"X-Forwarded-For": {"1.2.3.4"}, "X-Request-Id": {"r"}, "Te": {"trailers"}, "User-Agent": {"me"}, "X-Envoy-Internal": {"true"}}
		req.Trailer = http.Header{"X-T": {"v"}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", frontend, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-seen:
			checkHTTP2(t, frontend, got)
		default:
			t.Errorf("%s: the server sees nothing", frontend)
		}
		want := "HTTP/2.0 200 OK hi map[Content-Length:[2] Date:[x] Server:[mine]] map[X-Sum:[1]]"
		resp.Header.Del("Content-Type")
		if text := fmt.Sprintf("%s %s %s %v %v", resp.Proto, resp.Status, body, resp.Header, resp.Trailer); text != want {
			t.Errorf("%s: the client sees %s, want %s", frontend, text, want)
		}
	}
}

// checkHTTP2 wants the request just as TestHTTP2 made it.
func checkHTTP2(t *testing.T, frontend string, got *http.Request) {
	t.Helper()
	header := got.Header.Clone()
	header.Del("Accept-Encoding") // Go's client adds it.
	text := fmt.Sprintf("%s %s %s %s %v %v", got.Proto, got.Method, got.Host, got.RequestURI, header, got.Trailer)
	want := "HTTP/2.0 POST web.shop //a/../b%2f?x=y map[Content-Length:[4] Te:[trailers] User-Agent:[me] X-Envoy-Internal:[true] X-Forwarded-For:[1.2.3.4] X-Request-Id:[r]] map[X-T:[v]]"
	if text != want {
		t.Errorf("%s: the server sees\n%s, want\n%s", frontend, text, want)
	}
}

func h2Server(t *testing.T, address string, handler http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	protocols := clearHTTP2()
	protocols.SetHTTP1(true)
	server := &http.Server{Handler: handler, Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1 << 20}}
	go func() { _ = server.Serve(l) }() // Ends with Close, by an error that says so.
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// TestManyStreams has thousands of requests wait at the same time, on one
// connection of the client, and none is refused.
func TestManyStreams(t *testing.T) { bothModes(t, testManyStreams) }

func testManyStreams(t *testing.T, in mode) {
	const streams = 3000
	var all sync.WaitGroup
	all.Add(streams)
	var first sync.Once
	loaded := make(chan struct{})
	address := h2Server(t, "10.244.0.1:8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		first.Do(func() { close(loaded) })
		all.Done()
		all.Wait() // For the last one.
		_, _ = io.WriteString(w, "hi")
	}))
	in.fixture(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{address}}))
	client := in.h2Client()
	failures := make(chan error, streams)
	ask := func() { failures <- once(client, "10.96.1.10:80") }
	// The rest don't wait for the cluster, whose server this busy process is.
	go ask()
	select {
	case <-loaded:
	case <-time.After(10 * time.Second):
		t.Fatal("no request reaches the server")
	}
	for range streams - 1 {
		go ask()
	}
	for range streams {
		if err := <-failures; err != nil {
			t.Fatal(err)
		}
	}
}

// TestManyConnections: more connections at a time than Envoy's default limits.
func TestManyConnections(t *testing.T) { bothModes(t, testManyConnections) }

func testManyConnections(t *testing.T, in mode) {
	const connections = 1500
	var all sync.WaitGroup
	all.Add(connections)
	var first atomic.Bool
	web := h2Server(t, "10.244.0.1:8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if first.Swap(true) {
			all.Done()
			all.Wait()
		}
		_, _ = io.WriteString(w, "hi")
	}))
	in.fixture(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{web}}))
	// The first one has Envoy load the Service: here it is the limits that are
	// tried, not whether a busy machine loads it within the discovery timeout.
	if err := once(in.client(), "10.96.1.10:80"); err != nil {
		t.Fatal(err)
	}
	failures := make(chan error, connections)
	for range connections {
		go func() {
			client := in.client()
			failures <- once(client, "10.96.1.10:80")
		}()
	}
	for range connections {
		if err := <-failures; err != nil {
			t.Fatal(err)
		}
	}
}

// echoServer is a gRPC server: /echo/name answers with its name, /echo/stream
// with every message as it comes, /echo/fail with an error and its details.
func echoServer(t *testing.T, address, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(s)
		s.SetTrailer(metadata.Pairs("x-trailer", "t"))
		msg := &wrapperspb.StringValue{}
		for {
			err := s.RecvMsg(msg)
			switch {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			case method == "/echo/fail":
				return status.Error(codes.ResourceExhausted, "too many: \u00e9 %")
			case method == "/echo/name":
				msg.Value = name
			}
			if err := s.SendMsg(msg); err != nil {
				return err
			}
		}
	}))
	go func() { _ = server.Serve(l) }() // Ends with Stop.
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

func (m mode) dialGRPC(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return m.DialContext(ctx, "tcp", address) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestGRPC: calls, streams in both directions by turns, errors with their
// message and trailers.
func TestGRPC(t *testing.T) { bothModes(t, testGRPC) }

func testGRPC(t *testing.T, in mode) {
	address := echoServer(t, "10.244.0.1:8080", "one")
	in.fixture(t, nodeOf(t, service{"grpc", "10.96.1.10:80", []string{address}}, service{"auto", "10.96.3.10:80", []string{address}}))
	for _, frontend := range []string{"10.96.1.10:80", "10.96.3.10:80"} {
		conn := in.dialGRPC(t, frontend)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/echo/stream")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			want := strings.Repeat("x", i*1000) + "end"
			if err := s.SendMsg(wrapperspb.String(want)); err != nil {
				t.Fatal(err)
			}
			got := &wrapperspb.StringValue{}
			if err := s.RecvMsg(got); err != nil || got.GetValue() != want {
				t.Fatalf("message %d: %d bytes, %v; want %d", i, len(got.GetValue()), err, len(want))
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(&wrapperspb.StringValue{}); !errors.Is(err, io.EOF) || s.Trailer().Get("x-trailer")[0] != "t" {
			t.Errorf("end of the stream: %v, trailers %v", err, s.Trailer())
		}
		err = conn.Invoke(ctx, "/echo/fail", wrapperspb.String("x"), &wrapperspb.StringValue{})
		if st := status.Convert(err); st.Code() != codes.ResourceExhausted || st.Message() != "too many: \u00e9 %" {
			t.Errorf("an error of the server arrives as %v", err)
		}
	}
}

// TestBalance: one connection that is kept sends its requests to all backends
// evenly, which by itself it never would.
func TestBalance(t *testing.T) { bothModes(t, testBalance) }

func testBalance(t *testing.T, in mode) {
	const calls = 300
	var web, echo []string
	for i := range 3 {
		web = append(web, webServer(t, fmt.Sprintf("10.244.0.%d:8080", i+1), fmt.Sprint(i)))
		echo = append(echo, echoServer(t, fmt.Sprintf("10.244.0.%d:9090", i+1), fmt.Sprint(i)))
	}
	in.fixture(t, nodeOf(t, service{"web", "10.96.1.10:80", web}, service{"grpc", "10.96.1.11:90", echo}))

	t.Run("http", func(t *testing.T) {
		client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: in.DialContext, MaxConnsPerHost: 1}}
		even(t, calls, func() (string, error) {
			resp, err := client.Get("http://10.96.1.10/")
			if err != nil {
				return "", err
			}
			body, err := io.ReadAll(resp.Body)
			return string(body), errors.Join(err, resp.Body.Close())
		})
	})
	t.Run("grpc", func(t *testing.T) {
		conn := in.dialGRPC(t, "10.96.1.11:90")
		even(t, calls, func() (string, error) {
			got := &wrapperspb.StringValue{}
			err := conn.Invoke(t.Context(), "/echo/name", wrapperspb.String("x"), got)
			return got.GetValue(), err
		})
	})
}

// even makes calls and wants each of three backends to answer its third of
// them, give or take a fifth.
func even(t *testing.T, calls int, call func() (string, error)) {
	t.Helper()
	counts := map[string]int{}
	for range calls {
		name, err := call()
		if err != nil {
			t.Fatal(err)
		}
		counts[name]++
	}
	t.Logf("%d calls: %v", calls, counts)
	for _, name := range []string{"0", "1", "2"} {
		if n := counts[name]; n < calls/3*4/5 || n > calls/3*6/5 {
			t.Errorf("backend %s answered %d of %d calls", name, n, calls)
		}
	}
}
