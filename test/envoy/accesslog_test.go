// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/xds"
)

// use makes one request with all that the log shows, and one TCP connection,
// on each listener that takes them.
func (w *logged) use(t *testing.T) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://10.96.1.10/path?q=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "web.shop"
	req.Header = http.Header{"X-Request-Id": {"r-1"}, "User-Agent": {"me/1.0 (x)"}, "X-Forwarded-For": {"1.2.3.4"}}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	w.fixture.accessLog(1)
	mustGreet(t, "10.96.2.10:5000", "db-0")
	w.fixture.accessLog(2)
	if code, _, err := get("10.96.1.66:80"); err != nil || code != http.StatusServiceUnavailable {
		t.Fatalf("unknown frontend: %d, %v", code, err)
	}
	w.fixture.accessLog(3)
	if err := w.fixture.probe(); err != nil { // Not to be logged.
		t.Fatal(err)
	}
	mustGet(t, "10.96.3.10:80", "web-0")
}

type logged struct{ fixture *fixture }

func newLogged(t *testing.T, form xds.AccessLog) *logged {
	t.Helper()
	web, db := webServer(t, "10.244.0.1:8080", "web-0"), tcpServer(t, "10.244.0.2:5000", "db-0")
	return &logged{fixture: newFixtureWith(t, nodeOf(t,
		service{"web", "10.96.1.10:80", []string{web}},
		service{"db", "10.96.2.10:5000", []string{db}},
		service{"auto", "10.96.3.10:80", []string{web}},
	), setup{change: func(c *xds.Config) { c.AccessLog = form }})}
}

// steady replaces what differs from run to run.
func steady(line string) string {
	line = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`).ReplaceAllString(line, "TIME")
	line = regexp.MustCompile(`(10\.96\.\d+\.\d+):\d+( |")`).ReplaceAllString(line, "$1:PORT$2")
	line = regexp.MustCompile(`^(\[TIME\] \S+ \d+) \d+ `).ReplaceAllString(line, `$1 MS `)
	return regexp.MustCompile(`("duration_ms":)\d+`).ReplaceAllString(line, `$1"MS"`)
}

func TestAccessLogText(t *testing.T) {
	w := newLogged(t, xds.AccessLogText)
	w.use(t)
	var got []string
	for _, line := range w.fixture.accessLog(4) {
		got = append(got, steady(line))
	}
	// [time] code bytes_sent duration_ms upstream_host upstream_cluster
	// response_flags source source_pod backend "METHOD PATH PROTOCOL" "request_id"
	// "user_agent" "x_forwarded_for"
	want := []string{
		`[TIME] 200 5 MS 10.244.0.1:8080 shop/web/main - 10.96.1.10:PORT - shop/web-0 "GET /path?q=1 HTTP/1.1" "r-1" "me/1.0 (x)" "1.2.3.4"`,
		`[TIME] - 4 MS 10.244.0.2:5000 shop/db/main - 10.96.2.10:PORT - shop/db-0 "- - -" "-" "-" "-"`,
		`[TIME] 503 0 MS - - NC 10.96.1.66:PORT - - "GET / HTTP/1.1" "-" "Go-http-client/1.1" "-"`,
		`[TIME] 200 5 MS 10.244.0.1:8080 shop/auto/main - 10.96.3.10:PORT - shop/auto-0 "GET / HTTP/1.1" "-" "Go-http-client/1.1" "-"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("access log (-want +got):\n%s", diff)
	}
}

func TestAccessLogJSON(t *testing.T) {
	w := newLogged(t, xds.AccessLogJSON)
	w.use(t)
	lines := w.fixture.accessLog(4)
	want := []string{
		`{"backend":"shop/web-0","backend_node":null,"backend_workload":"web","bytes_sent":5,"code":200,"duration_ms":"MS","method":"GET","path":"/path?q=1","protocol":"HTTP/1.1","request_id":"r-1","response_flags":"-","source":"10.96.1.10:PORT","source_node":"node-a","source_pod":null,"source_workload":null,"time":"TIME","upstream_cluster":"shop/web/main","upstream_host":"10.244.0.1:8080","user_agent":"me/1.0 (x)","x_forwarded_for":"1.2.3.4"}`,
		`{"backend":"shop/db-0","backend_node":null,"backend_workload":"db","bytes_sent":4,"code":"-","duration_ms":"MS","method":"-","path":"-","protocol":"-","request_id":"-","response_flags":"-","source":"10.96.2.10:PORT","source_node":"node-a","source_pod":null,"source_workload":null,"time":"TIME","upstream_cluster":"shop/db/main","upstream_host":"10.244.0.2:5000","user_agent":"-","x_forwarded_for":"-"}`,
	}
	for i, w := range want {
		if diff := cmp.Diff(w, steady(lines[i])); diff != "" {
			t.Errorf("line %d (-want +got):\n%s", i, diff)
		}
	}
	for _, line := range lines {
		if err := json.Unmarshal([]byte(line), &map[string]any{}); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestAccessLogOff(t *testing.T) {
	w := newLogged(t, xds.AccessLogOff)
	mustGet(t, "10.96.1.10:80", "web-0")
	mustGreet(t, "10.96.2.10:5000", "db-0")
	// A log that is on has its lines within this many milliseconds.
	eventually(t, w.fixture.cfg.DiscoveryTimeout, func() error {
		if w.fixture.stat("tcp.tcp.downstream_cx_total") == 0 {
			return errors.New("no connection is counted yet")
		}
		return nil
	})
	if got := w.fixture.accessLog(0); len(got) > 0 {
		t.Errorf("a log that is off has %q", got)
	}
}

// TestAccessLogIsOneLine: nothing a client sends makes a second line, or shows
// our own headers.
func TestAccessLogIsOneLine(t *testing.T) {
	w := newLogged(t, xds.AccessLogText)
	if _, err := say("10.96.1.10:80", "GET /a HTTP/1.1\r\nHost: x\r\nUser-Agent: a\tb\x80\r\nX-Nodevoy-Destination: q\r\nX-Nodevoy-Envoy-External-Address: q\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	lines := w.fixture.accessLog(1)
	if len(lines) != 1 || strings.Contains(lines[0], "nodevoy") || strings.Contains(lines[0], " q ") {
		t.Errorf("log: %q", lines)
	}
}
