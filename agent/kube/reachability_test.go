// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nodevoy/nodevoy/agent/kube"
	"github.com/nodevoy/nodevoy/agent/model"
)

// TestAPIServerAway is one that refuses connections, then answers.
func TestAPIServerAway(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: k}}],
clusters: [{name: k, cluster: {server: "http://` + address + `"}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	source, err := kube.New(kube.Config{NodeName: "n", Kubeconfig: path, Now: time.Now}, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx) }()

	eventually(t, "the problem", func() bool { return len(source.Problems()) > 0 })
	if p := source.Problems()[0]; p.Kind != "API server" || !strings.Contains(p.Detail, "refused") {
		t.Errorf("problem %v, want the API server's refusal", p)
	}
	if ln, err = net.Listen("tcp", address); err != nil {
		t.Skipf("another process has taken %s: %v", address, err)
	}
	server := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.NotFoundHandler()}}
	server.Start()
	defer server.Close()
	eventually(t, "the answer", func() bool {
		return !slices.ContainsFunc(source.Problems(), func(p model.Problem) bool { return p.Kind == "API server" })
	})
	for message, want := range map[string]int{"API server can't be reached, what is known stays in force": 1, "API server answers again": 1} {
		if n := logs.FilterMessage(message).Len(); n != want {
			t.Errorf("%q was logged %d times, want %d", message, n, want)
		}
	}

	start := time.Now()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("ended after %s, in the middle of client-go's pauses", took)
	}
}
