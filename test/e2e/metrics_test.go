// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// TestMetrics: one scrape of the agent says what Envoy counted, by Service; counts
// go on when the agent is restarted; and without Envoy, the agent's own are there.
func TestMetrics(t *testing.T) { each(t, modes(), testMetrics) }

func testMetrics(t *testing.T, w *fixture) {
	w.setDead(t)
	w.start(t)
	w.callAll(t)
	want := []string{
		`nodevoy_requests_total{code="200",namespace="shop",port="http",service="web"} 30`,
		`nodevoy_requests_total{code="200",namespace="shop",port="grpc",service="web"} 30`,
		`nodevoy_requests_total{code="503",namespace="shop",port="http",service="dead"} 5`,
		`nodevoy_request_duration_seconds_count{namespace="shop",port="http",service="web"} 30`,
		`nodevoy_cross_zone_requests_total{namespace="shop",port="grpc",service="web"} 20`,
		`nodevoy_cross_zone_requests_total{namespace="shop",port="http",service="dead"} 5`,
		`nodevoy_connections_total{namespace="shop",port="tcp",service="web"} 30`,
		`nodevoy_connections_open{namespace="shop",port="tcp",service="web"} 0`,
		`nodevoy_retries_total{namespace="shop",port="http",service="dead"} 15`,
		`nodevoy_connect_failures_total{namespace="shop",port="http",service="dead"} 20`,
		`nodevoy_connect_failures_total{namespace="shop",port="tcp",service="dead"} 15`,
		// Each attempt of 5 requests, and the last one of 5 connections.
		`nodevoy_node_connect_failures_total{backend_node="node-b"} 25`,
		`nodevoy_discovery_failures_total{class="http"} 0`,
		`nodevoy_unrouted_requests_total{code="400"} 1`,
		`nodevoy_envoy_scraped{result="ok"} 1`,
		`nodevoy_redirecting 1`,
	}
	source := `nodevoy_source_requests_total{namespace="shop",port="http",service="web",source_namespace="shop"}`
	if w.variant.Mode == lab.Pods {
		want = append(want, source+" 30")
	}
	check(t, lab.Until(limit(t), "the metrics of all calls", func() error {
		got, err := w.scrape(t)
		if err != nil {
			return err
		}
		for _, line := range want {
			name, value, _ := strings.Cut(line, "} ")
			if !strings.Contains(line, "}") {
				name, value, _ = strings.Cut(line, " ")
			} else {
				name += "}"
			}
			if have, ok := got[name]; !ok || strconv.FormatFloat(have, 'f', -1, 64) != value {
				return fmt.Errorf("%s is %v, want %s; there: %v", name, have, value, ok)
			}
		}
		// The port's class is learnt while it is called.
		if got[`nodevoy_detections_total{result="timeout"}`] == 0 {
			return errors.New("no detection has timed out")
		}
		if _, ok := got[source]; ok != (w.variant.Mode == lab.Pods) {
			return fmt.Errorf("%s is there: %v", source, ok)
		}
		return nil
	}))
	check(t, w.agent.Stop(endLimit))
	w.startAgent(t)
	w.untilSettled(t)
	w.untilMetric(t, `nodevoy_requests_total{code="503",namespace="shop",port="http",service="dead"}`, 5)
	check(t, w.envoy.Stop(endLimit))
	w.untilMetric(t, `nodevoy_envoy_scraped{result="absent"}`, 1)
	w.untilMetric(t, `nodevoy_redirecting`, 0)
	if got := must(w.scrape(t))(t); len(got) == 0 || got[`nodevoy_envoy_scraped{result="ok"}`] != 0 {
		t.Errorf("without Envoy: %v", got)
	}
}

// setDead adds a Service whose backend on another node listens nowhere.
func (w *fixture) setDead(t *testing.T) {
	t.Helper()
	const nothing = 999
	w.Objects().SetService(lab.Service{
		Namespace: "shop", Name: "dead", IPs: addrs("10.96.0.50"), Pods: w.web[1:2],
		Ports: []corev1.ServicePort{lab.Port("http", 80, nothing), lab.Port("tcp", 81, nothing), lab.Port("web-ui", 82, nothing)},
	})
	w.Objects().SetService(lab.Service{
		Namespace: "shop", Name: "silent", IPs: addrs("10.96.0.51"), Pods: w.web[1:2],
		Ports: []corev1.ServicePort{lab.Port("web", 80, echo.TCPPort)},
	})
	check(t, w.Publish(limit(t)))
}

// callAll makes calls of each kind, 30 that succeed and 5 that fail, and one of bytes that
// are not HTTP where HTTP is declared.
func (w *fixture) callAll(t *testing.T) {
	t.Helper()
	const answered, failed = 30, 5
	for _, c := range []struct {
		protocol, target string
		requests, fail   int
	}{
		{echo.HTTP1, web4 + ":80", answered, 0},
		{echo.GRPC, web4 + ":9090", answered, 0},
		{echo.TCP, web4 + ":7000", answered, 0},
		{echo.TCP, "10.96.0.51:80", answered, 0},
		{echo.HTTP1, "10.96.0.50:80", failed, failed},
		{echo.TCP, "10.96.0.50:81", failed, failed},
	} {
		r := call(t, w.client, echo.Spec{
			Protocol: c.protocol, Target: c.target, Requests: c.requests, Fresh: c.protocol == echo.TCP, Connections: 10, Timeout: 5 * time.Second,
		})
		if r.Failed != c.fail {
			t.Errorf("%s to %s: %d of %d failed: %v", c.protocol, c.target, r.Failed, r.Requests, r.Errors)
		}
	}
	const notHTTP = `exec 3<>/dev/tcp/` + web4 + `/80; printf 'not HTTP\r\n\r\n' >&3; head -n 1 <&3`
	if answer, err := w.client.Run(limit(t), "bash", "-c", notHTTP); err != nil || !strings.Contains(answer, " 400 ") {
		t.Errorf("bytes that are not HTTP are answered %q, %v", answer, err)
	}
}

// scrape reads the agent's metrics: values by name and labels.
func (w *fixture) scrape(t *testing.T) (map[string]float64, error) {
	t.Helper()
	text, err := w.node.Get(t.Context(), "http://127.0.0.1:23720/metrics")
	if err != nil {
		return nil, err
	}
	got := map[string]float64{}
	for line := range strings.Lines(text) {
		end := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || end < 0 {
			continue
		}
		if got[line[:end]], err = strconv.ParseFloat(strings.TrimSpace(line[end:]), 64); err != nil {
			return nil, err
		}
	}
	return got, nil
}

// untilMetric waits until a metric has this value.
func (w *fixture) untilMetric(t *testing.T, name string, want float64) {
	t.Helper()
	check(t, lab.Until(limit(t), name, func() error {
		got, err := w.scrape(t)
		if err != nil {
			return err
		}
		if have, ok := got[name]; !ok || have != want {
			return fmt.Errorf("%s is %v, want %v; there: %v", name, have, want, ok)
		}
		return nil
	}))
}
