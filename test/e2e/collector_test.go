// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// collectorEnv says where the collector is; the Makefile sets it.
const collectorEnv = "NODEVOY_COLLECTOR"

// collectorConfig has the collector print all it gets.
const collectorConfig = `yaml:{receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:4317"}}}},
  exporters: {debug: {verbosity: detailed, use_internal_logger: false, output_paths: [stdout]}},
  service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}, logs: {receivers: [otlp], exporters: [debug]}}}}`

// TestCollector has a collector of OpenTelemetry on the node get a span and a record of
// the log for calls, which name both sides.
func TestCollector(t *testing.T) {
	each(t, []variant{hosts()[0], podBridged()}, func(t *testing.T, w *fixture) {
		program := os.Getenv(collectorEnv)
		if program == "" {
			t.Fatalf("%s is not set: run this by make", collectorEnv)
		}
		collector := must(w.node.Start("collector.log", program, "--config="+collectorConfig))(t)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the collector's output:\n%s", collector.Output())
			}
		})
		const endpoint = "127.0.0.1:4317"
		w.startAgent(t, "--otlp-endpoint", endpoint, "--tracing", "100%", "--access-log-otlp")
		w.envoy = must(w.node.StartEnvoyWith(limit(t), lab.EnvoyOptions{Bootstrap: []string{"--otlp-endpoint", endpoint}}))(t)
		must(w.agent.WaitRedirected(limit(t), w.client))(t)
		for protocol, port := range map[string]int{echo.HTTP1: 80, echo.GRPC: 9090, echo.TCP: 7000} {
			r := call(t, w.client, echo.Spec{Protocol: protocol, Target: fmt.Sprintf("%s:%d", web4, port), Requests: 3, Fresh: true})
			if r.Failed > 0 {
				t.Errorf("%s: %d failed: %v", protocol, r.Failed, r.Errors)
			}
			w.allThroughEnvoy(t, r)
		}
		resource := []string{"-> k8s.node.name: Str(node-a)", "-> service.name: Str(nodevoy)"}
		if w.variant.Mode == lab.Pods {
			resource = []string{
				"-> k8s.node.name: Str(node-a)", "-> service.name: Str(client)",
				"-> k8s.namespace.name: Str(shop)", "-> k8s.pod.name: Str(client)",
			}
		}
		check(t, lab.Until(limit(t), "spans and logs", func() error {
			batches := regexp.MustCompile(`(?m)^Resource(Spans|Log) #`).Split(collector.Output(), -1)
			for what, words := range map[string][]string{
				"span of a request":   {"Span #0", "-> nodevoy.service: Str(shop/web/http)", "-> nodevoy.backend.workload: Str(web)", "-> nodevoy.backend.pod: Str(shop/web-"},
				"span of gRPC":        {"Span #0", "-> nodevoy.service: Str(shop/web/grpc)", "-> grpc.status_code: Str(0)"},
				"record of a request": {"LogRecord #0", "-> upstream_cluster: Str(shop/web/http)", "-> backend_workload: Str(web)", "-> backend_node: Str(node-"},
				"record of bytes":     {"LogRecord #0", "-> upstream_cluster: Str(shop/web/tcp)", "-> backend: Str(shop/web-"},
			} {
				if !anyHas(batches, append(words, resource...)) {
					return fmt.Errorf("no %s with %q", what, append(words, resource...))
				}
			}
			return nil
		}))
		check(t, w.agent.Stop(endLimit))
		check(t, w.envoy.Stop(endLimit))
	})
}

// anyHas says whether one of the texts has all of the words.
func anyHas(texts, words []string) bool {
	for _, text := range texts {
		all := true
		for _, word := range words {
			all = all && strings.Contains(text, word)
		}
		if all {
			return true
		}
	}
	return false
}
