// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestClientSpeaksProtobuf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	const text = `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: k}}],
clusters: [{name: k, cluster: {server: "https://192.0.2.1:6443"}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := restConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Host != "https://192.0.2.1:6443" || cfg.ContentType != protobuf || !strings.HasPrefix(cfg.AcceptContentTypes, protobuf) {
		t.Errorf("host %s, content type %s, accepts %s", cfg.Host, cfg.ContentType, cfg.AcceptContentTypes)
	}
	if _, err := New(Config{NodeName: "n", Kubeconfig: path}, zap.NewNop()); err != nil {
		t.Errorf("make source: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, test := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no node name", Config{}, "kube: the node's name is empty"},
		{"no such kubeconfig", Config{NodeName: "n", Kubeconfig: "/none"}, "configure Kubernetes client: "},
		{"not in a cluster", Config{NodeName: "n"}, "configure Kubernetes client: unable to load in-cluster configuration"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := New(test.cfg, zap.NewNop()); err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}
