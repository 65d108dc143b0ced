// SPDX-License-Identifier: Apache-2.0

package selftest

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// perRequest is a proxy that chooses the next backend for each request, as
// Envoy does.
func perRequest(t *testing.T, names ...string) string {
	t.Helper()
	var next atomic.Int64
	hosts := make([]string, 0, len(names))
	for _, name := range names {
		hosts = append(hosts, strings.TrimPrefix(start(t, Handler(name)), "http://"))
	}
	return start(t, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: hosts[int(next.Add(1))%len(hosts)]})
	}})
}

// perConnection closes its connection after each answer, so that each request
// has one of its own and may reach another backend.
func perConnection(t *testing.T, names ...string) string {
	t.Helper()
	var next atomic.Int64
	return start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		Handler(names[int(next.Add(1))%len(names)]).ServeHTTP(w, r)
	}))
}

func start(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

func client(url string) Client {
	return Client{URL: url, Requests: 10, Backends: 2, Pause: 5 * time.Millisecond}
}

func TestClient(t *testing.T) {
	for name, tc := range map[string]struct {
		url  string
		want string // in the error; empty for success
	}{
		"each request is balanced":       {perRequest(t, "a", "b"), ""},
		"a connection sticks":            {start(t, Handler("a")), ErrNotRedirected.Error()},
		"one backend behind a proxy":     {perRequest(t, "a"), ErrNotRedirected.Error()},
		"each connection is balanced":    {perConnection(t, "a", "b"), "proves nothing"},
		"another server":                 {start(t, http.NotFoundHandler()), "404"},
		"a server that speaks otherwise": {start(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hi")) })), "something else"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := time.Minute
			if tc.want != "" {
				limit = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			var out bytes.Buffer
			err := client(tc.url).Run(ctx, &out)
			switch {
			case tc.want == "" && err != nil:
				t.Fatalf("got error %v\n%s", err, out.String())
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Fatalf("got error %v, want one with %q\n%s", err, tc.want, out.String())
			}
			if tc.want == "" && !strings.Contains(out.String(), "redirected: 2 backends answered one connection") {
				t.Errorf("the report doesn't say so:\n%s", out.String())
			}
		})
	}
}

// A pod is enrolled a moment after it started: what sticks at first must not
// end the test.
func TestClientWaitsForRedirection(t *testing.T) {
	sticks, spreads := Handler("a"), Handler("b")
	var requests atomic.Int64
	url := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := requests.Add(1); n > 30 && n%2 == 0 {
			spreads.ServeHTTP(w, r)
			return
		}
		sticks.ServeHTTP(w, r)
	}))
	var out bytes.Buffer
	if err := client(url).Run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if want := "attempt 4\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("want the report to end with %q:\n%s", want, out.String())
	}
	if n := strings.Count(out.String(), ErrNotRedirected.Error()); n != 1 {
		t.Errorf("the reason is given %d times, want once:\n%s", n, out.String())
	}
}

func TestSameBackendFromTwoAddressesIsOne(t *testing.T) {
	if got := (tally{{"a", "10.0.0.1"}: 3, {"a", "10.0.0.2"}: 3}).backends(); got != 1 {
		t.Errorf("got %d backends, want 1", got)
	}
}

func TestServe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, "me") }()
	resp, err := http.Get("http://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if want := `{"backend":"me","peer":"127.0.0.1"}` + "\n"; body.String() != want {
		t.Errorf("got %q, want %q", body.String(), want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*Client)
		want string
	}{
		"not http":      {func(c *Client) { c.URL = "https://x/" }, "http://SERVICE/"},
		"no host":       {func(c *Client) { c.URL = "http:///x" }, "http://SERVICE/"},
		"one backend":   {func(c *Client) { c.Backends = 1 }, "more than one"},
		"too few calls": {func(c *Client) { c.Requests = 1 }, "fewer than"},
		"no pause":      {func(c *Client) { c.Pause = 0 }, "pause"},
	} {
		t.Run(name, func(t *testing.T) {
			c := client("http://x/")
			tc.edit(&c)
			err := c.Run(t.Context(), &bytes.Buffer{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if err := client("http://x/").Validate(); err != nil {
		t.Errorf("valid settings refused: %v", err)
	}
}
