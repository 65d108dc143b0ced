// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestFirstRequests: the first request to a Service waits for its cluster and
// endpoints, and is then served whole, whatever its body.
func TestFirstRequests(t *testing.T) { bothModes(t, testFirstRequests) }

func testFirstRequests(t *testing.T, in mode) {
	count := h2Server(t, "10.244.0.1:8080", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		n, err := io.Copy(io.Discard, req.Body)
		fmt.Fprintf(w, "%d bytes, %v", n, err)
	}))
	var services []service
	for i := range 16 {
		services = append(services, service{fmt.Sprintf("web-%d", i), fmt.Sprintf("10.96.1.%d:80", i+1), []string{count}})
	}
	in.fixture(t, nodeOf(t, services...))
	next := 0
	frontend := func() string { next++; return fmt.Sprintf("http://10.96.1.%d/", next) }
	for name, client := range map[string]*http.Client{
		"HTTP/1.1": {Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: in.DialContext}},
		"HTTP/2":   in.h2Client(),
	} {
		for _, size := range []int64{0, 1, 100 << 10, 20 << 20} {
			for _, length := range []int64{size, -1} {
				req, err := http.NewRequest(http.MethodPost, frontend(), io.NopCloser(io.LimitReader(rand.Reader, size)))
				if err != nil {
					t.Fatal(err)
				}
				req.ContentLength = length
				resp, err := client.Do(req)
				if err != nil {
					t.Fatalf("%s, %d bytes: %v", name, size, err)
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if want := fmt.Sprintf("%d bytes, <nil>", size); err != nil || string(body) != want {
					t.Errorf("%s, %d bytes: %s, %q, %v; want %q", name, size, resp.Status, body, err, want)
				}
			}
		}
	}
}

// TestFirstTrailers: a request with trailers that is the first to its Service is
// refused, as Envoy's on_demand filter doesn't hold trailers back: see README.md. Those
// after it are served.
func TestFirstTrailers(t *testing.T) { bothModes(t, testFirstTrailers) }

func testFirstTrailers(t *testing.T, in mode) {
	address := h2Server(t, "10.244.0.1:8080", nothing())
	in.fixture(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{address}}, service{"calls", "10.96.1.11:80", []string{address}}))
	for frontend, client := range map[string]*http.Client{"10.96.1.10:80": in.client(), "10.96.1.11:80": in.h2Client()} {
		ask := func() (int, error) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+frontend, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = -1 // In chunks, which trailers need.
			req.Trailer = http.Header{"X-T": {"v"}}
			code, _, err := readAll(client.Do(req))
			return code, err
		}
		if code, err := ask(); err != nil || code != http.StatusServiceUnavailable {
			t.Errorf("%s, first: %d, %v; want 503", frontend, code, err)
		}
		eventually(t, 5*time.Second, func() error {
			if code, err := ask(); err != nil || code != http.StatusOK {
				return fmt.Errorf("%s, later: %d, %w", frontend, code, err)
			}
			return nil
		})
	}
}

// TestManyFirstRequests: hundreds of Services used for the first time at once.
func TestManyFirstRequests(t *testing.T) { bothModes(t, testManyFirstRequests) }

func testManyFirstRequests(t *testing.T, in mode) {
	web := webServer(t, "10.244.0.1:8080", "web")
	var services []service
	for i := range 200 {
		services = append(services, service{fmt.Sprintf("web-%d", i), fmt.Sprintf("10.96.1.%d:80", i+1), []string{web}})
	}
	r := in.fixture(t, nodeOf(t, services...))
	start := time.Now()
	var wait sync.WaitGroup
	for _, s := range services {
		wait.Go(func() {
			code, body, err := readAll(in.client().Get("http://" + s.frontend + "/"))
			if err != nil || code != http.StatusOK || body != "web" {
				t.Errorf("GET %s: %d %q, %v", s.frontend, code, body, err)
			}
		})
	}
	wait.Wait()
	t.Logf("200 first requests in %v", time.Since(start))
	if got := r.server.Status().InUse; got != len(services) {
		t.Errorf("%d frontends in use, want %d", got, len(services))
	}
}
