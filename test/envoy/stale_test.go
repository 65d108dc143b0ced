// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// closingServer answers requests, and closes each connection after its first answer: soon
// after it in HTTP/1, without a word about it, as some servers do at a maximum of requests
// or of age; in HTTP/2 as it says by GOAWAY or, if it says nothing, at the next request.
func closingServer(t *testing.T, address string, announces bool) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	type conn struct{}
	var answered sync.Map
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, again := answered.LoadOrStore(r.RemoteAddr, r.ProtoMajor); again {
				_ = r.Context().Value(conn{}).(net.Conn).Close() // The client sees it.
				return
			}
			if r.ProtoMajor == 2 && announces {
				w.Header().Set("Connection", "close")
			}
			_, _ = io.WriteString(w, "hi") // The client sees what is missing.
		}),
		Protocols:   &http.Protocols{},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, conn{}, c) },
		ConnState: func(c net.Conn, state http.ConnState) {
			if version, ok := answered.Load(c.RemoteAddr().String()); ok && version == 1 && state == http.StateIdle {
				time.AfterFunc(2*time.Millisecond, func() { _ = c.Close() })
			}
		},
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = server.Serve(l) }() // Ends with Close, by an error that says so.
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// TestServerCloses: a request that is the first on its client's connection meets no
// connection that its server is closing, as it doesn't without Envoy; by HTTP/2, if the
// server announces it.
func TestServerCloses(t *testing.T) { bothModes(t, testServerCloses) }

func testServerCloses(t *testing.T, in mode) {
	announcing, silent := closingServer(t, "10.244.0.1:8080", true), closingServer(t, "10.244.0.2:8080", false)
	in.fixture(t, nodeOf(t,
		service{"web", "10.96.1.10:80", []string{announcing}}, service{"auto", "10.96.3.10:80", []string{announcing}},
		service{"silent", "10.96.1.11:80", []string{silent}}))
	const calls = 150
	failed := func(front string, newClient func() *http.Client) (failed []error) {
		for range calls {
			client := newClient()
			resp, err := client.Post("http://"+front+"/", "text/plain", http.NoBody)
			if code, body, err := readAll(resp, err); err != nil || code != http.StatusOK {
				failed = append(failed, fmt.Errorf("%d %q, %w", code, body, err))
			}
			client.CloseIdleConnections()
		}
		return failed
	}
	// Without saying so, it makes one request on its connection.
	h1 := func() *http.Client { return &http.Client{Transport: &http.Transport{DialContext: in.DialContext}} }
	for front, clients := range map[string][]func() *http.Client{
		"10.96.1.10:80": {h1, in.h2Client}, "10.96.3.10:80": {h1, in.h2Client}, "10.96.1.11:80": {h1},
	} {
		for i, client := range clients {
			if failed := failed(front, client); len(failed) > 0 {
				t.Errorf("%d of %d calls of %s by HTTP/%d fail, each on a connection of its own: %v", len(failed), calls, front, i+1, failed[0])
			}
		}
	}
	if failed := failed("10.96.1.11:80", in.h2Client); len(failed) != calls/2 {
		t.Errorf("%d of %d calls by HTTP/2 fail that share connections in twos, of which the server closes each at the second", len(failed), calls)
	}
}

// TestOneConnectionAtATime: a server that serves one connection at a time, until it ends,
// is free again at once after a client that said that it closes, and soon after others.
func TestOneConnectionAtATime(t *testing.T) { bothModes(t, testOneConnectionAtATime) }

func testOneConnectionAtATime(t *testing.T, in mode) {
	server := newRawServer(t, "10.244.0.1:8080")
	go func() {
		for {
			c, err := server.listener.Accept()
			if err != nil {
				return // Closed by the cleanup.
			}
			from := bufio.NewReader(c)
			for last := false; !last; {
				request, err := http.ReadRequest(from)
				last = err != nil || request.Close
				if err == nil {
					_, _ = io.WriteString(c, answer) // The client sees what is missing.
				}
			}
			_ = c.Close()
		}
	}()
	r := in.fixture(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{server.address()}}))
	for _, says := range []bool{true, false} {
		start := time.Now()
		const calls = 5
		for range calls {
			client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: in.DialContext, DisableKeepAlives: says}}
			if code, _, err := readAll(client.Get("http://10.96.1.10:80/")); err != nil || code != http.StatusOK {
				t.Fatalf("%d, %v", code, err)
			}
			client.CloseIdleConnections()
		}
		most := (calls - 1) * r.cfg.UpstreamIdle / 2 // Half of what it takes if each waits.
		if !says {
			most = 2 * calls * r.cfg.UpstreamIdle
		}
		if took := time.Since(start); took >= most {
			t.Errorf("%d calls of clients that say that they close (%v) take %v, want less than %v", calls, says, took, most)
		}
	}
}
