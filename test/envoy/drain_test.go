// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/envoyadmin"
)

// keptAlive is an HTTP/1.1 connection through Envoy, that a client means to keep.
type keptAlive struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func keepAlive(t *testing.T, address string) *keptAlive {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // Envoy may have closed it.
	return &keptAlive{t: t, conn: conn, r: bufio.NewReader(conn)}
}

// ask does a request and says whether Envoy will close the connection.
func (k *keptAlive) ask() (closing bool) {
	k.t.Helper()
	err := k.conn.SetDeadline(time.Now().Add(5 * time.Second))
	if err == nil {
		_, err = fmt.Fprintf(k.conn, "GET / HTTP/1.1\r\nHost: web\r\n\r\n")
	}
	if err != nil {
		k.t.Fatalf("ask: %v", err)
	}
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		k.t.Fatalf("read answer: %v", err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		k.t.Fatalf("answer %s, %v", resp.Status, err)
	}
	return resp.Close
}

// TestDrain: the agent that leaves lets connections end, by what each protocol
// has for it; new ones are served all the while; and the next agent, beside the
// same Envoy, takes all of it back.
func TestDrain(t *testing.T) {
	const web, raw = "10.96.1.10:80", "10.96.2.10:7000"
	r := newFixture(t, nodeOf(t,
		service{"web", web, []string{webServer(t, "10.244.0.1:8080", "web-0")}},
		service{"raw", raw, []string{echoServer(t, "10.244.0.2:7000", "raw-0")}}))
	envoy := envoyadmin.New(r.cfg.AdminSocket)
	count := func(want int) {
		t.Helper()
		eventually(t, 5*time.Second, func() error {
			n, err := envoy.Connections(t.Context())
			if err == nil && n != want {
				err = fmt.Errorf("%d connections are open, want %d", n, want)
			}
			return err
		})
	}
	count(0)
	one, two := keepAlive(t, web), keepAlive(t, web)
	for _, k := range []*keptAlive{one, one, two} {
		if k.ask() {
			t.Fatal("Envoy closes connections before it drains")
		}
	}
	count(2)

	type outcome struct {
		left int
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		left, err := envoy.Drain(t.Context())
		done <- outcome{left, err}
	}()
	eventually(t, 5*time.Second, func() error {
		if r.stat("server.state") != 1 {
			return errors.New("Envoy does not drain")
		}
		return nil
	})
	mustGet(t, web, "web-0")
	if !one.ask() {
		t.Error("a draining Envoy keeps a connection alive")
	}
	select {
	case o := <-done:
		t.Errorf("drained with a connection left: %+v", o)
	default:
	}
	if !two.ask() {
		t.Error("a draining Envoy keeps a connection alive")
	}
	if o := <-done; o.left != 0 || o.err != nil {
		t.Errorf("drained: %+v", o)
	}

	if err := envoy.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	three := keepAlive(t, web)
	for range 2 {
		if three.ask() {
			t.Fatal("Envoy still drains after the next agent has come")
		}
	}
}

// TestDrainLimit: what doesn't end is counted and left, when time is up.
func TestDrainLimit(t *testing.T) {
	const web = "10.96.1.10:80"
	r := newFixture(t, nodeOf(t, service{"web", web, []string{webServer(t, "10.244.0.1:8080", "web-0")}}))
	keepAlive(t, web).ask()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if left, err := envoyadmin.New(r.cfg.AdminSocket).Drain(ctx); left != 1 || err != nil {
		t.Errorf("%d left, error %v; want the one idle connection", left, err)
	}
}

// TestDrainHTTP2: HTTP/2 clients are told to go elsewhere, and lose no request.
func TestDrainHTTP2(t *testing.T) {
	const web = "10.96.1.10:80"
	backend := h2Server(t, "10.244.0.1:8080", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := newFixture(t, nodeOf(t, service{"web", web, []string{backend}}))
	client := mode{dialer: &net.Dialer{}}.h2Client()
	ask := func() {
		t.Helper()
		resp, err := client.Get("http://" + web + "/")
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s, %v", resp.Status, err)
		}
	}
	ask()
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_, err := envoyadmin.New(r.cfg.AdminSocket).Drain(ctx)
		done <- err
	}()
	eventually(t, 10*time.Second, func() error {
		ask()
		if n := r.stat("http.http.downstream_cx_drain_close"); n == 0 {
			return errors.New("no HTTP/2 connection was told to close")
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
