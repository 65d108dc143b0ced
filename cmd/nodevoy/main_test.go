// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/agent"
)

// leaveSocket leaves a unix socket that nothing listens on, as a process does that
// is killed.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestExitCodes(t *testing.T) {
	empty, dead := t.TempDir(), t.TempDir()
	leaveSocket(t, agent.DebugSocket(dead))
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"", 0, "Usage"},
		{"--version", 0, "dev"},
		{"agent --help", 0, "--redirect-timeout"},
		{"frobnicate", exitUsage, "frobnicate"},
		{"agent --frobnicate", exitUsage, "--frobnicate"},
		{"agent now", exitUsage, `"now"`},
		{"agent", exitUsage, "--node-name is required"},
		{"agent --node-name n --objects /a --kubeconfig /b", exitUsage, "exclude each other"},
		{"agent --node-name n --mechanism foo", exitUsage, "foo"},
		{"agent --node-name n --redirect-mode both", exitUsage, "both"},
		{"agent --node-name n --netns-dir run/netns", exitUsage, "run/netns"},
		{"agent --node-name n --redirect-mode pod --max-connections-per-pod 1000001", exitUsage, "connections"},
		{"agent --node-name n --cluster-memory 1Mi", exitUsage, "at least 8Mi"},
		{"agent --node-name n --cluster-memory -1", exitUsage, "no size"},
		{"agent --node-name n --listener-port-http 70000", exitUsage, "70000"},
		{"agent --node-name n --listener-port-http 65530", exitUsage, "65530"},
		{"agent --node-name n --listener-address4 fd00::1", exitUsage, "fd00::1"},
		{"agent --node-name n --redirect-timeout 100ms", exitUsage, "100ms"},
		{"agent --node-name n --access-log xml", exitUsage, "xml"},
		{"agent --node-name n --access-log-format %X%", exitUsage, `"--access-log-format" flag: unknown command "X"`},
		{"agent --node-name n --access-log-filter some", exitUsage, `"--access-log-filter" flag`},
		{"agent --node-name n --access-log-file a.log", exitUsage, "--access-log-file"},
		{"agent --node-name n --tracing 5", exitUsage, `"--tracing" flag`},
		{"agent --node-name n --tracing 5%", exitUsage, "--otlp-endpoint"},
		{"agent --node-name n --otlp-endpoint otel", exitUsage, "--otlp-endpoint"},
		{"bootstrap --node-name n --otlp-endpoint otel.observability:4317", 0, "otel.observability"},
		{"agent --node-name n --opaque-ports 0", exitUsage, "0"},
		{"agent --node-name n --mark 0", exitUsage, "mark"},
		{"agent --node-name n --route-table 254", exitUsage, "254"},
		{"agent --node-name n --run-dir run", exitUsage, "run"},
		{"agent --node-name n --metrics-address nowhere", exitUsage, "nowhere"},
		{"agent --node-name n --metrics-address :99999", exitUsage, "99999"},
		{"agent --node-name n --listener-port-http 23731", exitUsage, "23731"},
		{"agent --node-name n --stuck-after 1ms", exitUsage, "1ms"},
		{"agent --node-name n --pod-opt-in-namespaces shop,*", exitUsage, `pod opt-in namespaces: "*"`},
		{"agent --node-name n --excluded-endpoints 10.0.0.1", exitUsage, "10.0.0.1"},
		{"agent --node-name n --excluded-endpoints fd00::/64,10.0.0.1/8", exitUsage, "10.0.0.1/8"},
		{"agent --node-name n --debounce 1h", exitUsage, "1h"},
		{"agent --node-name n --drain-timeout -1s", exitUsage, "-1s"},
		{"agent --node-name n --log-level loud", exitUsage, "loud"},
		{"agent --node-name n --log-format xml", exitUsage, "xml"},
		{"bootstrap", exitUsage, "--node-name is required"},
		{"bootstrap --node-name n", 0, "/run/nodevoy/xds.sock"},
		{"bootstrap --node-name n --envoy-max-heap 1Gi", 0, "1073741824"},
		{"bootstrap --node-name n --envoy-max-heap 64Mi", 0, "67108864"},
		{"bootstrap --node-name n --envoy-max-heap 1.5G", 0, "1500000000"},
		{"bootstrap --node-name n --envoy-max-heap 536870912", 0, "536870912"},
		{"bootstrap --node-name n --envoy-max-heap 0", 0, "/run/nodevoy/xds.sock"},
		{"bootstrap --node-name n --envoy-max-heap much", exitUsage, "much"},
		{"bootstrap --node-name n --envoy-max-heap 1GB", exitUsage, "1GB"},
		{"bootstrap --node-name n --envoy-max-heap -64Mi", exitUsage, "-64Mi"},
		{"bootstrap --node-name n --envoy-max-heap 63Mi", exitUsage, "at least 64Mi"},
		{"bootstrap --node-name n --envoy-max-heap 0.1", exitUsage, "at least 64Mi"},
		{"bootstrap --node-name n --envoy-max-heap 99999999999Gi", 0, "9223372036854775807"},
		{"bootstrap --node-name n --output " + empty + "/no/envoy.yaml", exitFailed, empty + "/no/envoy.yaml"},
		{"cleanup --netns-dir run/netns", exitUsage, "run/netns"},
		{"status -o xml", exitUsage, "table, json, yaml"},
		{"status now", exitUsage, `"now"`},
		{"status -o yaml --run-dir " + empty, exitNotRunning, "the agent is not running on this node"},
		{"flows --status 5x", exitUsage, `status "5x"`},
		{"flows --origin envy", exitUsage, `origin "envy"`},
		{"flows --last -1", exitUsage, "negative"},
		{"flows -o yaml", exitUsage, "table, wide, json"},
		{"flows --run-dir " + empty, exitNotRunning, "the agent is not running on this node"},
		{"flows -f --run-dir " + dead, exitNotRunning, "the agent is not running on this node"},
		{"pods --run-dir " + empty, exitNotRunning, "the agent is not running on this node"},
		{"services --run-dir " + empty, exitNotRunning, "the agent is not running on this node"},
		{"xds --run-dir " + empty, exitNotRunning, "the agent is not running on this node"},
		{"advise --run-dir " + empty, exitNotRunning, "the agent is not running on this node"},
		{"advise -o xml", exitUsage, "table, json, yaml"},
		{"top --sort names", exitUsage, "rate, errors, p99"},
		{"top --interval 0s", exitUsage, "above 0"},
		{"top --run-dir " + empty, exitNotRunning, "the agent is not running on this node"},
		{"check --netns-dir run/netns", exitUsage, "run/netns"},
		{"check -o xml", exitUsage, "table, json, yaml"},
		{"dump -f " + empty + "/no/file", exitFailed, empty + "/no/file"},
		{"dump --run-dir " + empty, exitNotRunning, "the agent is not running on this node"},
		{"debug-proxy --run-dir " + empty, exitNotRunning, "the agent is not running on this node"},
		{"completion bash", 0, "complete"},
		{"status --run-dir " + empty, exitNotRunning, "the agent is not running on this node: nothing listens on " + empty + "/agent.sock"},
		{"status --run-dir " + dead, exitNotRunning, "the agent is not running on this node"},
		{"get", exitUsage, "one argument"},
		{"get /v1/summary --run-dir " + empty, exitNotRunning, "the agent is not running on this node"},
		{"log-level --run-dir " + dead, exitNotRunning, "the agent is not running on this node"},
		{"log-level --agent debug --reset", exitUsage, "--reset"},
		{"agent --node-name n --debug-address 0.0.0.0:23719", exitUsage, "loopback"},
		{"agent --node-name n --debug-address localhost:23719", exitUsage, "IP address"},
		{"agent --node-name n --debug-address 127.0.0.1:0", exitUsage, "loopback"},
		{"agent --node-name n --debug-address 127.0.0.1:23720", exitUsage, "--metrics-address"},
		{"why", exitUsage, "--from and --to, or --flow"},
		{"why --from shop/web --to api:80 --flow 1", exitUsage, "excludes"},
		{"why --from shop/web --to api:80 -o xml", exitUsage, "xml"},
		{"why --from shop/web --to api:80 --netns-dir " + empty + " --run-dir " + empty, exitNotRunning, "the agent is not running on this node"},
		{"why --from shop/web --to api:80 --netns-dir " + empty + " --run-dir " + dead, exitNotRunning, "the agent is not running on this node"},
		{"health", exitUsage, "live, ready or envoy"},
		{"health well", exitUsage, "live, ready or envoy"},
		{"health ready --run-dir " + empty, exitNotRunning, "the agent is not running on this node"},
		{"health live --run-dir " + dead, exitNotRunning, "the agent is not running on this node"},
		{"health envoy --run-dir " + empty, exitNotRunning, "Envoy is not running on this node: nothing listens on " + empty + "/envoy-health.sock"},
		{"render --node-name n", exitUsage, "--objects is required"},
		{"render --node-name n --objects /nonexistent", exitFailed, "/nonexistent"},
		{"cleanup --mark 0", exitUsage, "mark"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := run(t.Context(), strings.Fields(tt.args), &out, &errs)
			if code != tt.code {
				t.Errorf("exit code %d, want %d: %s", code, tt.code, &errs)
			}
			said := out.String()
			if tt.code != 0 {
				said = errs.String()
			}
			if !strings.Contains(said, tt.says) {
				t.Errorf("said %q, want it to contain %q", said, tt.says)
			}
		})
	}
}

func TestRenderShowsWhatWouldHappenAndWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("demo.yaml", `
apiVersion: v1
kind: Namespace
metadata: {name: demo, labels: {nodevoy.io/redirect: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: demo}
spec: {nodeName: node-a, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.244.1.5, podIPs: [{ip: 10.244.1.5}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: demo}
spec: {clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: demo, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.2.7], targetRef: {kind: Pod, namespace: demo, name: web-1}}]
`)
	write("broken.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: bad, namespace: demo}\nspec: {prots: []}\n")
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"render", "--node-name", "node-a", "--objects", dir}, &out, &errs); code != exitFailed {
		t.Errorf("exit code %d with a broken file, want %d", code, exitFailed)
	}
	for _, want := range []string{
		"# pod demo/client: enrolled: namespace label", "# frontend 10.96.0.10:80, demo/web/http: class detect: port name http, HTTP not seen yet",
		"10.96.0.10:80", "demo/web/http", "10.244.2.7", "demo/web-1", "NODEVOY-PREROUTING", "10.96.0.10,tcp:80", "10.244.1.5",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q", want)
		}
	}
	for _, want := range []string{"broken.yaml", "Service demo/bad", "prots"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("the broken file's report %q lacks %q", &errs, want)
		}
	}
	if err := os.Remove(filepath.Join(dir, "broken.yaml")); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	errs.Reset()
	if code := run(t.Context(), []string{"render", "--node-name", "node-a", "--objects", dir, "--redirect-mode", "pod"}, &out, &errs); code != 0 {
		t.Errorf("exit code %d without the broken file: %s", code, &errs)
	}
	for _, want := range []string{
		"# listener http/demo/client/demo/client", "/run/netns/demo_client", "address: 127.0.0.1", "# pod demo/client", "NODEVOY-OUTPUT", "10.244.1.5",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output in pod mode lacks %q:\n%s", want, &out)
		}
	}
	for _, bad := range []string{"NODEVOY-PREROUTING", "169.254.64.15"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("output in pod mode has host mode's %q", bad)
		}
	}
}
