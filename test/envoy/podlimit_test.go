// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/xds"
)

// TestPodConnectionLimit: a pod that has as many connections as it may gets no
// more, until one ends. Other classes, other pods and the probe know nothing of
// it.
func TestPodConnectionLimit(t *testing.T) {
	sourceServers(t)
	a, b := newPod(t, "pod-a", 2), newPod(t, "pod-b", 3)
	const most = 5
	r := newFixtureWith(t, nodeOf(t, sourceServices()...), setup{pods: []*pod{a, b}, change: func(c *xds.Config) { c.MaxConnectionsPerPod = most }})
	for _, address := range []string{"10.96.1.10:80", "10.96.2.10:5000", "10.96.3.10:80", "10.96.3.11:5000"} {
		t.Run(address, func(t *testing.T) {
			message := question
			if strings.HasSuffix(address, ":80") {
				message = "GET / HTTP/1.1\r\nHost: web\r\n\r\n"
			}
			try := func(p *pod) (net.Conn, error) {
				c, err := p.DialContext(t.Context(), "tcp", address)
				if err != nil {
					return nil, err
				}
				return c, exchangeOnce(c, message, p.v4)
			}
			var open []net.Conn
			for range most {
				c, err := try(a)
				a.ok(err)
				open = append(open, c)
			}
			for range 3 {
				if c, err := try(a); err == nil {
					t.Error("one connection too many is taken")
					_ = c.Close()
				}
			}
			a.ok(a.probe())
			b.serves()
			_ = open[0].Close()
			eventually(t, 2*time.Second, func() error {
				c, err := try(a)
				if err == nil {
					open[0] = c
				}
				return err
			})
			for _, c := range open {
				_ = c.Close()
			}
			eventually(t, 2*time.Second, func() error {
				c, err := try(a)
				if c != nil {
					_ = c.Close()
				}
				return err
			})
		})
	}
	r.alive()
}

// exchangeOnce sends a message and wants the text in what comes back.
func exchangeOnce(c net.Conn, message, want string) error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, message); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err == nil && !strings.Contains(string(buf[:n]), want) {
		err = fmt.Errorf("answer %q, want %s", buf[:n], want)
	}
	return err
}

// TestPodPorts: a pod can have as many connections to each backend as it has
// ports, not to all of them together.
func TestPodPorts(t *testing.T) {
	sourceServers(t)
	a := newPod(t, "pod-a", 2)
	newFixtureWith(t, nodeOf(t, sourceServices()...), setup{pods: []*pod{a}})
	a.ok(a.do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40059"), 0o600)
	}))
	// To either go fewer than there are ports, together more.
	for range 40 {
		a.ok(speak(a.dial("10.96.2.10:5000"), a.v4))
		a.ok(speak(a.dial("10.96.2.11:5000"), a.v4))
		a.ok(speak(a.dial("[fd00:96:2::10]:5000"), a.v6))
	}
}

// TestPodAccessLog: a line names the pod that called and the backend's. What is
// said to a listener itself is in no line, and brings about nothing.
func TestPodAccessLog(t *testing.T) {
	web, db := webServer(t, "10.244.0.1:8080", "web-0"), tcpServer(t, "10.244.0.2:5000", "db-0")
	a, b := newPod(t, "pod-a", 2), newPod(t, "pod-b", 3)
	r := newFixtureWith(t, nodeOf(t,
		service{"web", "10.96.1.10:80", []string{web}},
		service{"db", "10.96.2.10:5000", []string{db}},
		service{"auto", "10.96.3.10:80", []string{web}},
	), setup{pods: []*pod{a, b}})
	for _, host := range []string{"127.0.0.1", "::1"} {
		checkNotRedirected(t, a, host)
	}
	if n := len(r.clusters()); n != 0 {
		t.Errorf("Envoy has %d clusters that nobody used", n)
	}
	n := 0
	for _, p := range []*pod{a, b} {
		for _, address := range []string{"10.96.1.10:80", "10.96.3.10:80"} {
			if code, body, err := p.get(address); code != http.StatusOK || body != "web-0" {
				t.Fatalf("%s: %d %q, %v", address, code, body, err)
			}
			n++
			r.accessLog(n)
		}
		if got, err := p.say("10.96.2.10:5000", "x"); got != "db-0" {
			t.Fatalf("TCP: %q, %v", got, err)
		}
		n++
		r.accessLog(n)
	}
	var got []string
	for _, line := range r.accessLog(n) {
		fields := strings.Fields(line)
		if len(fields) < 10 {
			t.Fatalf("a line of %d columns: %s", len(fields), line)
		}
		host, _, err := net.SplitHostPort(fields[7])
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		got = append(got, strings.Join(append([]string{fields[5], host}, fields[8:10]...), " "))
	}
	want := []string{
		"shop/web/main 172.20.0.2 shop/pod-a shop/web-0", "shop/auto/main 172.20.0.2 shop/pod-a shop/auto-0", "shop/db/main 172.20.0.2 shop/pod-a shop/db-0",
		"shop/web/main 172.20.0.3 shop/pod-b shop/web-0", "shop/auto/main 172.20.0.3 shop/pod-b shop/auto-0", "shop/db/main 172.20.0.3 shop/pod-b shop/db-0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("access log (-want +got):\n%s", diff)
	}
}

// TestHeapBound: an Envoy close to the bound of its heap takes no connections,
// so that the agent's probe fails, and takes them again, with those that
// waited, once there are fewer. It stays healthy all the while: a restart would
// cut the connections it has. It is filled with the headers of requests that never
// end, as it ends those whose bodies fill it: see TestHeapBoundEndsRequests.
func TestHeapBound(t *testing.T) {
	web := webServer(t, "10.244.0.1:8080", "web-0")
	r := newFixtureWith(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{web}}), setup{change: func(c *xds.Config) { c.MaxHeap = 64 << 20 }})
	mustGet(t, "10.96.1.10:80", "web-0")
	headers := "GET / HTTP/1.1\r\nHost: web\r\n" + strings.Repeat("X-Fill: "+strings.Repeat("x", 1000)+"\r\n", 120)
	var full []net.Conn
	empty := func() {
		for _, c := range full {
			_ = c.Close()
		}
	}
	defer func() { empty() }()
	eventually(t, 20*time.Second, func() error {
		if r.stat("overload.envoy.overload_actions.stop_accepting_connections.active") == 1 {
			return nil
		}
		c, err := net.DialTimeout("tcp", "10.96.1.10:80", 5*time.Second)
		if err != nil {
			return err
		}
		full = append(full, c)
		if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		// What Envoy doesn't take any more stays in the kernel.
		_, _ = io.WriteString(c, headers)
		return fmt.Errorf("connections are taken after %d, with %d bytes in use", len(full), r.stat("server.memory_allocated"))
	})
	if r.probe() == nil {
		t.Error("the probe is answered")
	}
	// As for kubelet, three failures in a row count: one may come of connections that
	// are taken again between the check's two questions.
	var failures []error
	for len(failures) < 3 {
		err := r.health()
		if err == nil {
			break
		}
		failures = append(failures, err)
	}
	if len(failures) == 3 {
		t.Errorf("health checks: %v", errors.Join(failures...))
	}
	waiting, err := net.DialTimeout("tcp", "10.96.1.10:80", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = waiting.Close() }()
	empty()
	took := eventually(t, 20*time.Second, r.probe)
	t.Logf("taken again %v after the requests that filled it ended", took)
	if err := exchangeOnce(waiting, "GET / HTTP/1.1\r\nHost: web\r\n\r\n", "web-0"); err != nil {
		t.Errorf("the connection that waited: %v", err)
	}
	mustGet(t, "10.96.1.10:80", "web-0")
}

// TestHeapBoundEndsConnections: an Envoy that headers without an end fill, on
// connections that it has taken before, ends some of those, stays below its bound, and
// serves all others again once they are gone.
func TestHeapBoundEndsConnections(t *testing.T) {
	web := webServer(t, "10.244.0.1:8080", "web-0")
	r := newFixtureWith(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{web}}), setup{change: func(c *xds.Config) { c.MaxHeap = 64 << 20 }})
	mustGet(t, "10.96.1.10:80", "web-0")
	var all []net.Conn
	empty := func() {
		for _, c := range all {
			_ = c.Close()
		}
	}
	defer func() { empty() }()
	for range 1000 {
		c, err := net.DialTimeout("tcp", "10.96.1.10:80", 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	// All together more than the bound, and each of them allowed.
	headers := strings.Repeat("X-Fill: "+strings.Repeat("x", 1000)+"\r\n", 120)
	for _, c := range all {
		if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		// What Envoy doesn't take any more stays in the kernel.
		_, _ = io.WriteString(c, headers)
	}
	most := 0
	eventually(t, 20*time.Second, func() error {
		most = max(most, r.stat("server.memory_allocated"))
		if left := r.stat("http.http.downstream_cx_active"); left > 600 {
			return fmt.Errorf("%d connections are left, and %d bytes in use", left, most)
		}
		return nil
	})
	if bound := int(r.cfg.MaxHeap) * 5 / 4; most > bound {
		t.Errorf("%d bytes were in use, want at most %d", most, bound)
	}
	empty()
	eventually(t, 20*time.Second, r.probe)
	mustGet(t, "10.96.1.10:80", "web-0")
	r.alive()
}

// TestHeapBoundEndsRequests: an Envoy that downloads fill, as their client doesn't
// read, ends some of those, and goes on to serve all others.
func TestHeapBoundEndsRequests(t *testing.T) {
	web := webServer(t, "10.244.0.1:8080", "web-0")
	flood := h2Server(t, "10.244.0.3:8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		piece := make([]byte, 64<<10)
		for {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}))
	r := newFixtureWith(t, nodeOf(t,
		service{"web", "10.96.1.10:80", []string{web}},
		service{"flood", "10.96.1.11:80", []string{flood}},
	), setup{change: func(c *xds.Config) { c.MaxHeap = 64 << 20 }})
	client := &http.Client{Transport: &http.Transport{
		Protocols: &http.Protocols{}, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10, MaxReceiveBufferPerConnection: 64 << 10},
	}}
	client.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
	defer client.CloseIdleConnections()
	for range 40 {
		// Each is left unread, and those that are ended don't come again.
		response, err := client.Get("http://10.96.1.11:80/")
		if err != nil {
			continue
		}
		defer func() { _ = response.Body.Close() }()
	}
	eventually(t, 30*time.Second, func() error {
		if n := r.stat("envoy.overload_actions.reset_high_memory_stream.count"); n == 0 {
			return fmt.Errorf("no request is ended, with %d bytes in use", r.stat("server.memory_allocated"))
		}
		return nil
	})
	for range 20 {
		mustGet(t, "10.96.1.10:80", "web-0")
	}
	if most := int(r.cfg.MaxHeap); r.stat("server.memory_allocated") > most {
		t.Errorf("%d bytes in use, want at most %d", r.stat("server.memory_allocated"), most)
	}
	r.alive()
}
