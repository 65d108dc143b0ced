// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/envoyadmin"
	"github.com/nodevoy/nodevoy/agent/loglevel"
	"github.com/nodevoy/nodevoy/test/sourcetest"
)

// TestAdminPages: every page that the debug endpoint passes on is there, and JSON is JSON
// after secrets were replaced. One that Envoy refuses is an error, in its words.
func TestAdminPages(t *testing.T) {
	const web = "10.96.1.10:80"
	r := newFixture(t, nodeOf(t, service{"web", web, []string{webServer(t, "10.244.0.1:8080", "web-0")}}))
	keepAlive(t, web).ask()
	envoy := envoyadmin.New(r.cfg.AdminSocket)
	read := func(page string, query url.Values) (string, string, error) {
		contentType, text, err := envoy.Page(t.Context(), page, query)
		if err != nil {
			return "", "", err
		}
		body, err := io.ReadAll(text)
		_ = text.Close()
		return contentType, string(body), err
	}
	for page, want := range map[string]string{"config_dump": `"HTTP/1.1 10.96.1.10:80"`, "clusters": "HTTP/1.1 10.96.1.10:80::", "listeners": "http-v4::", "stats": "cluster."} {
		if _, body, err := read(page, nil); err != nil || !strings.Contains(body, want) {
			t.Errorf("%s: %v, no %s in %.300s", page, err, want, body)
		}
		if page == "config_dump" {
			continue
		}
		contentType, body, err := read(page, url.Values{"format": {"json"}})
		if err != nil || !json.Valid([]byte(body)) || contentType != "application/json" {
			t.Errorf("%s as JSON: %v, %s %.300s", page, err, contentType, body)
		}
	}
	contentType, body, err := read("config_dump", url.Values{"resource": {"dynamic_active_clusters"}, "name_regex": {".*10.96.1.10:80"}})
	if err != nil || !json.Valid([]byte(body)) || contentType != "application/json" || strings.Count(body, `"version_info"`) != 1 {
		t.Errorf("one cluster: %v, %s %s", err, contentType, body)
	}
	if _, _, err := read("config_dump", url.Values{"resource": {"nonsense"}}); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("nonsense: %v", err)
	}
	if _, _, err := read("quitquitquit", nil); err == nil {
		t.Error("any page is read")
	}
}

// TestEnvoyLogLevel changes what Envoy logs for a while. It falls back when the time is
// over, and, after an agent that was killed, when the next one starts.
func TestEnvoyLogLevel(t *testing.T) {
	r := newFixture(t, nodeOf(t))
	envoy := envoyadmin.New(r.cfg.AdminSocket)
	is := func(want string) {
		t.Helper()
		eventually(t, 10*time.Second, func() error {
			got, err := envoy.LogLevel(t.Context())
			if err == nil && got != want {
				err = fmt.Errorf("level %s, want %s", got, want)
			}
			return err
		})
	}
	usual, err := envoy.LogLevel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	levels := loglevel.New(zap.NewAtomicLevel(), envoy, time.Now, zap.NewNop())
	for _, level := range []string{"trace", "debug", "info", "warning", "error", "critical", "off"} {
		if err := levels.Set(t.Context(), view.SetLogLevel{Envoy: level}); err != nil {
			t.Fatal(err)
		}
		is(level)
	}
	if err := levels.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	is(usual)
	sourcetest.Until(t, levels.Run)
	if err := levels.Set(t.Context(), view.SetLogLevel{Envoy: "critical", For: view.Duration(time.Second)}); err != nil {
		t.Fatal(err)
	}
	is("critical")
	is(usual)
	if err := envoy.SetLogLevel(t.Context(), "critical"); err != nil {
		t.Fatal(err)
	}
	sourcetest.Until(t, loglevel.New(zap.NewAtomicLevel(), envoy, time.Now, zap.NewNop()).Run)
	is(usual)
}
