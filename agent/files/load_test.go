// SPDX-License-Identifier: Apache-2.0

package files_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"go.uber.org/zap"
	"sigs.k8s.io/yaml"

	"github.com/nodevoy/nodevoy/agent/files"
)

// writeCluster writes a cluster of that many Services of ten endpoints each,
// in ten files, as YAML or as JSON.
func writeCluster(tb testing.TB, dir string, services int, asJSON bool) {
	tb.Helper()
	var files [10]bytes.Buffer
	for i := range services {
		name := fmt.Sprintf("svc-%05d", i)
		endpoints := make([]map[string]any, 10)
		for e := range endpoints {
			endpoints[e] = map[string]any{
				"addresses": []string{fmt.Sprintf("10.%d.%d.%d", 100+i/2500, i/10%250, i%10*10+e+1)},
				"nodeName":  fmt.Sprintf("node-%d", (i+e)%200), "zone": fmt.Sprintf("zone-%d", e%3),
				"conditions": map[string]any{"ready": true, "serving": true, "terminating": false},
				"targetRef":  map[string]any{"kind": "Pod", "namespace": "shop", "name": fmt.Sprintf("%s-%d", name, e)},
			}
		}
		for _, object := range []map[string]any{{
			"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"namespace": "shop", "name": name},
			"spec": map[string]any{
				"clusterIP": fmt.Sprintf("10.96.%d.%d", i/250, i%250+1),
				"ports":     []map[string]any{{"name": "http", "port": 80}},
			},
		}, {
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
			"metadata": map[string]any{
				"namespace": "shop", "name": name + "-a", "labels": map[string]any{"kubernetes.io/service-name": name},
			},
			"ports":     []map[string]any{{"name": "http", "port": 8080, "protocol": "TCP"}},
			"endpoints": endpoints,
		}} {
			text, err := json.Marshal(object)
			if err != nil {
				tb.Fatal(err)
			}
			to := &files[i%len(files)]
			if asJSON {
				to.Write(append(text, '\n'))
				continue
			}
			if text, err = yaml.JSONToYAML(text); err != nil {
				tb.Fatal(err)
			}
			to.WriteString("---\n")
			to.Write(text)
		}
	}
	suffix := ".yaml"
	if asJSON {
		suffix = ".json"
	}
	for i := range files {
		path := filepath.Join(dir, fmt.Sprintf("part-%d%s", i, suffix))
		if err := os.WriteFile(path, files[i].Bytes(), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	const services = 10_000
	for _, format := range []string{"yaml", "json"} {
		b.Run(fmt.Sprintf("%s/services=%d", format, services), func(b *testing.B) {
			dir := b.TempDir()
			writeCluster(b, dir, services, format == "json")
			b.ReportAllocs()
			for b.Loop() {
				inputs, problems, err := files.Load(dir, "node-1")
				if err != nil || len(problems) > 0 || len(inputs.Services) != services {
					b.Fatalf("loaded %d services, problems %v, error %v", len(inputs.Services), problems, err)
				}
			}
		})
	}
}

// BenchmarkChange is from one Service changed in a large directory to the
// signal, the wait for quiet included.
func BenchmarkChange(b *testing.B) {
	dir := b.TempDir()
	writeCluster(b, dir, 10_000, false)
	path := filepath.Join(dir, "part-0.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	source, err := files.New(dir, "node-1", zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- source.Run(b.Context()) }()
	<-source.Changed()
	for i := 0; b.Loop(); i++ {
		changed := fmt.Sprintf("%s---\n{apiVersion: v1, kind: Service, metadata: {name: last-%d}}\n", text, i)
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			b.Fatal(err)
		}
		<-source.Changed()
	}
	b.StopTimer()
	if n := len(source.Inputs().Services); n != 10_001 || len(source.Problems()) > 0 {
		b.Fatalf("%d services, problems %v", n, source.Problems())
	}
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	b.ReportMetric(float64(stats.HeapAlloc)/(1<<20), "MB-held")
}
