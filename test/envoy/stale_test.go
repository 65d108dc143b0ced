// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// closingServer answers each connection's first request and closes the connection 2 ms
// later, without a word about it in the answer. Some servers do, at a maximum of
// requests or of age, or as they end.
func closingServer(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // Closed by the cleanup.
			}
			go func() {
				defer func() { _ = c.Close() }()
				request, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				if _, err := io.Copy(io.Discard, request.Body); err != nil {
					return
				}
				_, _ = io.WriteString(c, answer) // The client sees what is missing.
				<-time.After(2 * time.Millisecond)
			}()
		}
	}()
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
		failed := 0
		const calls = 200
		for range calls {
			resp, err := in.client().Post("http://"+front+"/", "text/plain", http.NoBody)
			if code, _, err := readAll(resp, err); err != nil || code != http.StatusOK {
				failed++
			}
		}
		if failed > 0 {
			t.Errorf("%d of %d calls of %s fail, each on a connection of its own", failed, calls, front)
		}
	}
}
