// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDeadBackend: a backend that takes no connections costs no request and no
// connection, as another one is tried.
func TestDeadBackend(t *testing.T) {
	alive := []string{webServer(t, "10.244.0.1:8080", "web"), "10.244.0.2:8080", webServer(t, "10.244.0.3:8080", "web")}
	db := []string{tcpServer(t, "10.244.0.1:5000", "db"), "10.244.0.2:5000"}
	newFixture(t, nodeOf(t,
		service{"web", "10.96.1.10:80", alive},
		service{"db", "10.96.2.10:5000", db},
		service{"dead", "10.96.1.11:80", alive[1:2]},
		service{"deaddb", "10.96.2.11:5000", db[1:]}))
	for range 60 {
		mustGet(t, "10.96.1.10:80", "web")
		mustGreet(t, "10.96.2.10:5000", "db")
	}
	start := time.Now()
	if code, body, err := get("10.96.1.11:80"); err != nil || code != http.StatusServiceUnavailable {
		t.Errorf("with all backends dead: %d %q, %v; want 503", code, body, err)
	}
	if got, err := greeting("10.96.2.11:5000"); got != "" {
		t.Errorf("with all backends dead: %q, %v; want the connection closed", got, err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("with all backends dead, it takes %v to say so", took)
	}
}

// TestNothingIsSentTwice: a request that a server may have seen is not tried
// again, whatever becomes of it.
func TestNothingIsSentTwice(t *testing.T) { bothModes(t, testNothingIsSentTwice) }

func testNothingIsSentTwice(t *testing.T, in mode) {
	w := newWire(t, in)
	for _, request := range []string{
		get11("/", ""),
		"PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc",
	} {
		for name, fail := range map[string]func(pair){
			"closed": func(p pair) { _ = p.server.Close() },
			"reset":  func(p pair) { _ = p.server.SetLinger(0); _ = p.server.Close() },
			"5xx":    func(p pair) { p.send(p.server, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n") },
			"noise":  func(p pair) { p.send(p.server, "this is not HTTP\r\n\r\n") },
		} {
			t.Run(name, func(t *testing.T) {
				p := w.open(t, w.frontends[0], request)
				p.expect(p.server, request)
				fail(p)
				got, err := readAbout(p.client, 1)
				if err != nil || !strings.HasPrefix(got, "HTTP/1.1 50") {
					t.Errorf("the client gets %q, %v", got, err)
				}
				if again, err := w.server.accept(100 * time.Millisecond); err == nil {
					_ = again.Close()
					t.Error("the server gets a second connection")
				}
				_ = p.server.Close()
			})
			w.drained()
		}
	}
}

// TestHungEnvoy: an Envoy that answers no more, with its connection open, is
// given up.
func TestHungEnvoy(t *testing.T) {
	r := newFixture(t, nodeOf(t))
	if err := r.envoy.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	took := eventually(t, 15*time.Second, func() error {
		if st := r.server.Status(); st.Connected {
			return fmt.Errorf("still connected: %+v", st)
		}
		return nil
	})
	t.Logf("given up after %v", took)
	if err := r.envoy.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.awaitReady()
}
