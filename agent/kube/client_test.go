// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/kube"
)

// TestClient reads a kubeconfig file, and asks for protobuf before JSON.
func TestClient(t *testing.T) {
	var accept atomic.Pointer[string]
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		accept.CompareAndSwap(nil, new(req.Header.Get("Accept")))
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: k}}],
clusters: [{name: k, cluster: {server: "` + server.URL + `"}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, kube.Config{Kubeconfig: path})
	eventually(t, "a request", func() bool { return accept.Load() != nil })
	if got := *accept.Load(); !strings.HasPrefix(got, "application/vnd.kubernetes.protobuf") || !strings.Contains(got, ",application/json") {
		t.Errorf("accepts %s", got)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, test := range []struct {
		name string
		cfg  kube.Config
		want string
	}{
		{"no node name", kube.Config{}, "kube: the node's name is empty"},
		{"no such kubeconfig", kube.Config{NodeName: "n", Kubeconfig: "/none"}, "configure Kubernetes client: "},
		{"not in a cluster", kube.Config{NodeName: "n"}, "configure Kubernetes client: unable to load in-cluster configuration"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := kube.New(test.cfg, zap.NewNop()); err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}
