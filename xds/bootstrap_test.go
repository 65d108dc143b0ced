// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"
)

// bootstrapOf renders the bootstrap and decodes it, which fails if it has a field
// that the API doesn't have, or a value that the API forbids.
func bootstrapOf(t *testing.T, cfg Config) (string, *bootstrapv3.Bootstrap) {
	t.Helper()
	text, err := Bootstrap(cfg)
	if err != nil {
		t.Fatal(err)
	}
	json, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	out := &bootstrapv3.Bootstrap{}
	if err := protojson.Unmarshal(json, out); err != nil {
		t.Fatal(err)
	}
	if err := out.ValidateAll(); err != nil {
		t.Fatal(err)
	}
	return string(text), out
}

func TestBootstrap(t *testing.T) {
	host, _ := bootstrapOf(t, testConfig())
	pods, _ := bootstrapOf(t, podConfig())
	if diff := cmp.Diff(host, pods); diff != "" {
		t.Errorf("bootstrap (-host +pod):\n%s", diff)
	}
	bounded := testConfig()
	bounded.MaxHeap = 1 << 30
	text, _ := bootstrapOf(t, bounded)
	for _, want := range []string{"fixed_heap", `max_heap_size_bytes: "1073741824"`, "soft_memory_limit_bytes: 1073741824", "stop_accepting_connections"} {
		if !strings.Contains(text, want) || strings.Contains(host, want) {
			t.Errorf("%s: want it with a bound on the heap, and without one not", want)
		}
	}
}

// TestBootstrapQuotes: no character of a setting ends its string in YAML.
func TestBootstrapQuotes(t *testing.T) {
	for _, odd := range []string{`a"b`, `a\b`, "a: b", "a #b", "{{a}}", "a\nb", "'", "ü\u2028"} {
		cfg := testConfig()
		cfg.NodeID, cfg.Socket = odd, "/"+odd
		_, b := bootstrapOf(t, cfg)
		path := b.GetStaticResources().GetClusters()[0].GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetPipe().GetPath()
		if b.GetNode().GetId() != odd || path != "/"+odd {
			t.Errorf("%q is written as node %q, path %q", odd, b.GetNode().GetId(), path)
		}
	}
	bad := testConfig()
	bad.NodeID = "\xff"
	if _, err := Bootstrap(bad); err == nil {
		t.Error("a node id that is not UTF-8 is accepted")
	}
}
