// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// closingServer answers requests of both versions, and closes the connection soon after
// an answer, without a word about it. Some servers do, at a maximum of requests or of
// age, or as they end.
func closingServer(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var answered sync.Map
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answered.Store(r.RemoteAddr, r.ProtoMajor)
			_, _ = io.WriteString(w, "hi") // The client sees what is missing.
		}),
		Protocols: &http.Protocols{},
		ConnState: func(c net.Conn, state http.ConnState) {
			version, ok := answered.Load(c.RemoteAddr().String())
			if !ok || state != http.StateIdle {
				return
			}
			soon := 2 * time.Millisecond
			if version == 2 {
				// The answer may yet have to be written.
				soon = 20 * time.Millisecond
			}
			time.AfterFunc(soon, func() { _ = c.Close() })
		},
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = server.Serve(l) }() // Ends with Close, by an error that says so.
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// TestServerClosesUnannounced: a request that is the first on its client's connection
// never meets a connection that its server is closing, as it doesn't without Envoy.
func TestServerClosesUnannounced(t *testing.T) { bothModes(t, testServerClosesUnannounced) }

func testServerClosesUnannounced(t *testing.T, in mode) {
	backend := closingServer(t, "10.244.0.1:8080")
	frontends := []string{"10.96.1.10:80", "10.96.3.10:80"}
	in.fixture(t, nodeOf(t, service{"web", frontends[0], []string{backend}}, service{"auto", frontends[1], []string{backend}}))
	for _, front := range frontends {
		for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
			var failed []error
			const calls = 150
			for range calls {
				client := in.h2Client()
				if version == "HTTP/1.1" {
					// Without saying so, it makes one request on its connection.
					client.Transport = &http.Transport{DialContext: in.DialContext}
				}
				resp, err := client.Post("http://"+front+"/", "text/plain", http.NoBody)
				if code, body, err := readAll(resp, err); err != nil || code != http.StatusOK {
					failed = append(failed, fmt.Errorf("%d %q, %v", code, body, err))
				}
				client.CloseIdleConnections()
			}
			if len(failed) > 0 {
				t.Errorf("%d of %d calls of %s by %s fail, each on a connection of its own: %v", len(failed), calls, front, version, failed[0])
			}
		}
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
