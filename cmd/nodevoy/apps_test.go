// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRenderApps renders well-known applications. Each port has the class that one who
// knows the application would choose; a port that is named as one of HTTP is detected
// first, and so is one without a declaration that leads to HTTP.
func TestRenderApps(t *testing.T) {
	for app, want := range map[string]map[string]string{
		"sock-shop": {
			"front-end/80": "detect", "carts/80": "detect", "catalogue/80": "detect", "orders/80": "detect", "payment/80": "detect",
			"queue-master/80": "detect", "shipping/80": "detect", "user/80": "detect", "rabbitmq/exporter": "detect",
			"carts-db/27017": "tcp", "catalogue-db/3306": "tcp", "orders-db/27017": "tcp", "rabbitmq/rabbitmq": "tcp",
			"session-db/6379": "tcp", "user-db/27017": "tcp",
		},
		"monitoring": {
			"grafana/http-web": "detect", "kube-state-metrics/http": "detect", "prometheus-node-exporter/http-metrics": "detect",
			"alertmanager/http-web": "detect", "prometheus/http-web": "detect", "thanos-sidecar/grpc": "detect", "thanos-sidecar/http": "detect",
			"alertmanager/reloader-web": "http", "prometheus/reloader-web": "http", "operator/https": "tcp",
		},
		"gitlab": {
			"webservice-default/http-webservice": "detect", "webservice-default/http-workhorse": "detect", "webservice-default/http-metrics-ws": "detect",
			"registry/http-registry": "detect", "kas/http-metrics": "detect", "nginx-ingress-controller/http": "detect",
			"prometheus-server/http": "detect", "gitlab-exporter/http-metrics": "detect",
			"gitlab-shell/ssh": "tcp", "kas/tcp-kas-external-api": "tcp", "kas/tcp-kas-internal-api": "tcp", "kas/tcp-kas-k8s-api": "tcp",
			// MinIO's, but nothing says so: 9000 is as often FastCGI or ClickHouse.
			"minio-svc/service": "tcp", "postgresql/tcp-postgresql": "tcp", "redis-master/tcp-redis": "tcp",
			"nginx-ingress-controller/https": "tcp", "nginx-ingress-controller/gitlab-shell": "tcp",
			"certmanager/tcp-prometheus-servicemonitor": "tcp", "certmanager-webhook/https": "tcp",
		},
	} {
		t.Run(app, func(t *testing.T) {
			manifests, err := os.ReadFile(filepath.Join("testdata", app+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "app.yaml"), manifests, 0o600); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			if code := run(t.Context(), []string{"render", "--node-name", "node-a", "--objects", dir}, &out, &errs); code != 0 {
				t.Fatalf("exit code %d: %s", code, &errs)
			}
			got := map[string]string{}
			for _, line := range regexp.MustCompile(`(?m)^# frontend \S+, `+app+`/(\S+): class (\S+):`).FindAllStringSubmatch(out.String(), -1) {
				got[line[1]] = line[2]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("classes (-want +got):\n%s", diff)
			}
		})
	}
}
