// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

// newLoggedWith is newLogged with other settings of the access log, in a mode.
func newLoggedWith(t *testing.T, in mode, change func(*xds.Config)) *logged {
	t.Helper()
	web, db := webServer(t, "10.244.0.1:8080", "web-0"), tcpServer(t, "10.244.0.2:5000", "db-0")
	return &logged{fixture: newFixtureWith(t, nodeOf(t,
		service{"web", "10.96.1.10:80", []string{web}}, service{"db", "10.96.2.10:5000", []string{db}},
	), setup{pods: in.pods, change: change})}
}

// ask makes a request for a path in the mode.
func (m mode) ask(t *testing.T, url string) {
	t.Helper()
	resp, err := m.client().Get(url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
}

// greet makes a connection to the database in the mode.
func (m mode) greet(t *testing.T) {
	t.Helper()
	conn := m.dial(t, "10.96.2.10:5000")
	if err := errors.Join(conn.SetDeadline(time.Now().Add(5*time.Second)), conn.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
}

// TestAccessLogNames: JSON names workload and node of both sides.
func TestAccessLogNames(t *testing.T) {
	bothModes(t, func(t *testing.T, in mode) {
		w := newLoggedWith(t, in, func(c *xds.Config) { c.AccessLog = xds.AccessLogJSON })
		in.ask(t, "http://10.96.1.10/")
		w.fixture.accessLog(1)
		in.greet(t)
		for i, line := range w.fixture.accessLog(2) {
			var got map[string]any
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Fatal(err)
			}
			name := []string{"web", "db"}[i]
			want := map[string]any{
				"source_pod": nil, "source_workload": nil, "source_node": "node-a",
				"backend": "shop/" + name + "-0", "backend_workload": name, "backend_node": nil,
			}
			if in.pods != nil {
				want["source_pod"], want["source_workload"] = "shop/pod-a", "client"
			}
			for key, value := range want {
				if diff := cmp.Diff(value, got[key]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", key, diff)
				}
			}
		}
	})
}

// TestAccessLogFormat: Envoy takes every command that a format may have, for requests
// and for connections, and columns by name.
func TestAccessLogFormat(t *testing.T) {
	format := `{%NODEVOY(method)% %NODEVOY(upstream_cluster)% %NODEVOY(backend_workload)% 100%% %REQ(USER-AGENT):2%} ` + strings.Join(xds.LogExamples(), " ")
	bothModes(t, func(t *testing.T, in mode) {
		w := newLoggedWith(t, in, func(c *xds.Config) { c.AccessLogFormat = xds.LogFormat(format) })
		in.ask(t, "http://10.96.1.10/")
		w.fixture.accessLog(1)
		in.greet(t)
		for i, line := range w.fixture.accessLog(2) {
			if want := []string{"{GET shop/web/main web 100% Go} ", "{- shop/db/main db 100% -} "}[i]; !strings.HasPrefix(line, want) || strings.Contains(line, "NODEVOY") {
				t.Errorf("line %q, want %q", line, want)
			}
		}
	})
}

// TestAccessLogFile: the log is in a file, and in a new one after it was moved away and
// Envoy was told.
func TestAccessLogFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	w := newLoggedWith(t, mode{}, func(c *xds.Config) { c.AccessLogFile = path })
	lines := func(path string) error {
		text, err := os.ReadFile(path)
		if err == nil && strings.Count(string(text), "\n") != 1 {
			err = fmt.Errorf("%s has %q", path, text)
		}
		return err
	}
	mustGet(t, "10.96.1.10:80", "web-0")
	eventually(t, 5*time.Second, func() error { return lines(path) })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	w.fixture.post("/reopen_logs")
	mustGet(t, "10.96.1.10:80", "web-0")
	eventually(t, 5*time.Second, func() error { return errors.Join(lines(path), lines(path+".1")) })
	if got := w.fixture.accessLog(0); len(got) > 0 {
		t.Errorf("standard output has %q", got)
	}
}

// TestAccessLogFilter: each filter passes what it selects and nothing else.
func TestAccessLogFilter(t *testing.T) {
	for filter, want := range map[string]int{
		"errors": 1, "sample=100%": 3, "slower=24h,errors": 1, "slower=24h": 0, "off": 0, "slower=24h,sample=0.0001%": 0,
	} {
		t.Run(filter, func(t *testing.T) {
			var f model.LogFilter
			if err := f.UnmarshalText([]byte(filter)); err != nil {
				t.Fatal(err)
			}
			w := newLoggedWith(t, mode{}, func(c *xds.Config) { c.AccessLogFilter = f })
			mustGet(t, "10.96.1.10:80", "web-0")
			mustGreet(t, "10.96.2.10:5000", "db-0")
			if code, _, err := get("10.96.1.66:80"); err != nil || code != http.StatusServiceUnavailable {
				t.Fatalf("unknown frontend: %d, %v", code, err)
			}
			got := w.fixture.accessLog(want)
			failed := 0
			for _, line := range got {
				if strings.Contains(line, " 503 ") {
					failed++
				}
			}
			if f.Errors && failed != 1 || len(got) != want {
				t.Errorf("%d lines, %d of failures: %q", len(got), failed, got)
			}
		})
	}
}

// TestTelemetryByNamespace: what a Namespace says about the log and about tracing holds
// for its pods at once, and ends no connection.
func TestTelemetryByNamespace(t *testing.T) {
	p := newPod(t, "pod-a", 2)
	in, c := mode{dialer: p, pods: []*pod{p}}, newCollector(t, "127.0.0.1:0")
	web, held := webServer(t, "10.244.0.1:8080", "web-0"), byteServer(t, "10.244.0.2:5000")
	node := nodeOf(t, service{"web", "10.96.1.10:80", []string{web}}, service{"db", "10.96.2.10:5000", []string{held}})
	f := newFixtureWith(t, node, setup{pods: in.pods, change: func(c2 *xds.Config) {
		c2.OTLPEndpoint, c2.TelemetryAnnotations, c2.AccessLogFilter = c.address, true, model.LogFilter{}
	}})
	conn := in.dial(t, "10.96.2.10:5000")
	talk := func() {
		t.Helper()
		echo := make([]byte, 1)
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, echo); err != nil {
			t.Fatal(err)
		}
	}
	client := in.client()
	client.Transport.(*http.Transport).DisableKeepAlives = false
	call := func() {
		t.Helper()
		resp, err := client.Get("http://10.96.1.10/")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	talk()
	call()
	for i, step := range []struct {
		says        model.Telemetry
		logs, spans bool
	}{
		{model.Telemetry{AccessLog: new(model.LogAll()), Tracing: new(model.Whole)}, true, true},
		{model.Telemetry{AccessLog: &model.LogFilter{Errors: true}}, false, false},
		{model.Telemetry{AccessLog: &model.LogFilter{Slower: time.Millisecond, Sample: model.Whole}}, true, false},
		{model.Telemetry{Tracing: new(model.Whole)}, false, true},
	} {
		lines, spans := len(f.accessLog(0)), len(c.allSpans())
		next := *node
		next.Telemetry = map[string]model.Telemetry{"shop": step.says, "other": {AccessLog: new(model.LogAll()), Tracing: new(model.Whole)}}
		f.server.Publish(&next, targets(in.pods...))
		eventually(t, 5*time.Second, func() error {
			if !f.server.Status().Settled {
				return errors.New("not settled")
			}
			return nil
		})
		const calls = 5
		for range calls {
			call()
			talk()
		}
		if step.logs {
			f.accessLog(lines + calls)
		}
		if step.spans {
			eventually(t, 15*time.Second, func() error { return c.hasSpans(spans + calls) })
		}
		if got := len(f.accessLog(0)); !step.logs && got != lines {
			t.Errorf("step %d: %d more lines", i, got-lines)
		}
		if got := len(c.allSpans()); !step.spans && got != spans {
			t.Errorf("step %d: %d more spans", i, got-spans)
		}
	}
	if n := f.stat("http.http.downstream_cx_total"); n != 1 {
		t.Errorf("the client needed %d connections", n)
	}
	if n := f.stat("listener_manager.listener_modified"); n != 0 {
		t.Errorf("%d listeners were changed", n)
	}
}

// TestAccessLogOTLP: the collector gets each line as a record, with the columns' names.
func TestAccessLogOTLP(t *testing.T) {
	bothModes(t, func(t *testing.T, in mode) {
		c := newCollector(t, "127.0.0.1:0")
		newLoggedWith(t, in, func(cfg *xds.Config) {
			cfg.AccessLog, cfg.OTLPEndpoint, cfg.AccessLogOTLP = xds.AccessLogOff, c.address, true
		})
		in.ask(t, "http://10.96.1.10/path")
		in.greet(t)
		eventually(t, 10*time.Second, func() error {
			if n := len(c.records()); n != 2 {
				return fmt.Errorf("%d records", n)
			}
			return nil
		})
		for _, r := range c.records() {
			want := map[string]string{"upstream_cluster": "shop/web/main", "backend": "shop/web-0", "backend_workload": "web", "method": "GET", "path": "/path", "code": "200", "source_node": "node-a"}
			if r.attributes["upstream_cluster"] == "shop/db/main" {
				want = map[string]string{"upstream_cluster": "shop/db/main", "backend": "shop/db-0", "backend_workload": "db", "source_node": "node-a"}
			}
			about := map[string]string{"service.name": "nodevoy", "k8s.node.name": "node-a"}
			if in.pods != nil {
				want["source_pod"], want["source_workload"] = "shop/pod-a", "client"
				about = map[string]string{
					"service.name": "client", "k8s.node.name": "node-a", "k8s.namespace.name": "shop", "k8s.pod.name": "pod-a", "k8s.pod.uid": "uid-pod-a",
				}
			}
			kept := map[string]string{}
			for key := range want {
				kept[key] = r.attributes[key]
			}
			if diff := cmp.Diff(want, kept); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(about, r.resource); diff != "" {
				t.Errorf("resource (-want +got):\n%s", diff)
			}
			if _, has := r.attributes["method"]; has != (r.attributes["upstream_cluster"] == "shop/web/main") || !strings.Contains(r.body, " "+r.attributes["backend"]+" ") {
				t.Errorf("record %v, %q", r.attributes, r.body)
			}
		}
	})
}
