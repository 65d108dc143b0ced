// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	agents "github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/redirect/probe"
	"github.com/nodevoy/nodevoy/test/kubetest"
	"github.com/nodevoy/nodevoy/test/openapitest"
	"github.com/nodevoy/nodevoy/test/sourcetest"
)

// eventually waits for a condition.
func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 15 s", what)
		case <-tick.C:
		}
	}
}

// TestWired runs all parts of an agent as they are wired, on a fake kernel: what the
// source knows is in metrics and status, and the owner of an object that can't be
// used as written is told.
func TestWired(t *testing.T) {
	server := kubetest.NewServer(t, kinds.All()...)
	in := oneService()
	server.Put(in.Namespaces[0])
	server.Put(in.Pods[0])
	in.Services[0].Labels = map[string]string{"nodevoy.io/redirect": "perhaps"}
	server.Put(in.Services[0])

	a := newMachine(t).agent(t, false)
	a.cfg.NodeName, a.cfg.RunDir, a.cfg.DrainTimeout = "node-a", t.TempDir(), 0
	a.cfg.Redirect.Address4 = netip.MustParseAddr("127.0.0.1")
	a.cfg.Kubeconfig = filepath.Join(a.cfg.RunDir, "kubeconfig")
	config, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"contexts": []any{map[string]any{"name": "c", "context": map[string]string{"cluster": "k"}}},
		"clusters": []any{map[string]any{"name": "k", "cluster": map[string]string{"server": server.Config().Host}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.cfg.Kubeconfig, config, 0o600); err != nil {
		t.Fatal(err)
	}
	a.cfg.MetricsAddress, a.cfg.DebugAddress = freeAddress(t), freeAddress(t)
	a.cfg = a.cfg.Resolved()
	if err := a.wire(probe.Findings{}); err != nil {
		t.Fatal(err)
	}
	sourcetest.Until(t, a.Run)

	eventually(t, "the Event", func() bool { return strings.Contains(server.Events()["web"].Note, "perhaps") })
	eventually(t, "the metrics", func() bool {
		text := get(t, "http://"+a.cfg.MetricsAddress+"/metrics")
		return strings.Contains(text, `nodevoy_watch_synced{kind="Service"} 1`) && strings.Contains(text, `nodevoy_watch_failing{kind="Service"} 0`)
	})
	eventually(t, "a round", func() bool { return a.state.Load() != nil && a.state.Load().Node != nil })
	asDescribed(t, "http://"+a.cfg.DebugAddress)
	server.Refuse("watch", "services", http.StatusForbidden)
	server.BreakWatches("services")
	var v view.Status
	eventually(t, "the fault in status", func() bool {
		v, err = agents.Socket("", DebugSocket(a.cfg.RunDir)).Status(t.Context(), false)
		return err == nil && strings.Contains(strings.Join(v.Problems, "\n"), "Service: can't be followed")
	})
	for _, w := range v.Watches {
		if failing := w.Kind == "Service"; !w.Synced || (w.Error != "") != failing || (w.Since != nil) != failing {
			t.Errorf("status shows of the kinds %+v", w)
		}
	}
	if len(v.Watches) != len(kinds.All()) {
		t.Errorf("status shows %d kinds", len(v.Watches))
	}
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	return ln.Addr().String()
}

// asDescribed wants every answer of a debug endpoint on loopback to be as the endpoint
// itself describes it.
func asDescribed(t *testing.T, url string) {
	t.Helper()
	var doc *openapitest.Document
	eventually(t, "the debug endpoint", func() bool {
		text := get(t, url+"/v1/openapi.yaml")
		if text != "" {
			doc = openapitest.New(t, []byte(text))
		}
		return text != ""
	})
	doc.CheckAnswers(t, http.DefaultClient, url, false, strings.NewReplacer("{namespace}", "demo", "{name}", "web", "/v1/why", "/v1/why?from=demo/client&to=web:80"))
}

// get is what is served at a URL; empty if nothing is.
func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	body, err := io.ReadAll(resp.Body)
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	if err != nil {
		t.Error(err)
	}
	return string(body)
}
