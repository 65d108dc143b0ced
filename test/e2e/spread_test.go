// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// TestSpread sees calls of every protocol go through Envoy, and the requests of
// one connection spread over all backends, on every kind of node.
func TestSpread(t *testing.T) {
	all := append(hosts(), podBridged(), podLegacy(), podRouted(), podAlone())
	each(t, all, func(t *testing.T, w *fixture) {
		w.start(t)
		for _, ip := range []string{web4, web6} {
			w.checkRequests(t, ip)
			w.checkConnections(t, ip)
			w.checkOutsider(t, ip)
		}
		w.checkAccessLog(t)
		if w.variant.name == hostBridged().name || w.variant.name == podBridged().name {
			w.checkEndpoint(t)
		}
		check(t, w.agent.Stop(endLimit))
		check(t, w.envoy.Stop(endLimit))
		check(t, w.node.Cleanup(limit(t)))
	})
}

// checkRequests wants 300 requests on one connection spread evenly.
func (w *fixture) checkRequests(t *testing.T, ip string) {
	t.Helper()
	for _, c := range []struct {
		protocol string
		port     int
	}{{echo.HTTP1, 80}, {echo.HTTP1, 8080}, {echo.H2C, 80}, {echo.H2C, 8080}, {echo.GRPC, 9090}} {
		what := fmt.Sprintf("%s to %s:%d", c.protocol, ip, c.port)
		r := call(t, w.client, echo.Spec{Protocol: c.protocol, Target: fmt.Sprintf("%s:%d", ip, c.port), Requests: 300})
		if r.Failed > 0 || r.Connections != 1 {
			t.Errorf("%s: %d failed, %d connections: %v", what, r.Failed, r.Connections, r.Errors)
		}
		for _, pod := range w.web {
			if n := r.Pods["shop/"+pod.Name]; n < 80 || n > 120 {
				t.Errorf("%s: %s got %d of 300 requests, want 80 to 120", what, pod.Name, n)
			}
		}
		w.allThroughEnvoy(t, r)
	}
}

// checkConnections wants 60 connections spread over all backends, and each of
// them at one.
func (w *fixture) checkConnections(t *testing.T, ip string) {
	t.Helper()
	for _, c := range []struct {
		protocol string
		port     int
	}{{echo.HTTP10, 80}, {echo.HTTP10, 8080}, {echo.HTTP1, 80}, {echo.GRPCStream, 9090}, {echo.TCP, 7000}} {
		what := fmt.Sprintf("%s to %s:%d", c.protocol, ip, c.port)
		spec := echo.Spec{Protocol: c.protocol, Target: fmt.Sprintf("%s:%d", ip, c.port), Requests: 60, Fresh: true}
		r := call(t, w.client, spec)
		if r.Failed > 0 || r.Connections != 60 || len(r.Pods) != 3 {
			t.Errorf("%s: %d failed, %d connections, pods %v: %v", what, r.Failed, r.Connections, r.Pods, r.Errors)
		}
		w.allThroughEnvoy(t, r)
		if c.protocol != echo.TCP && c.protocol != echo.GRPCStream {
			continue
		}
		spec.Fresh = false
		if r := call(t, w.client, spec); r.Failed > 0 || len(r.Pods) != 1 {
			t.Errorf("%s, one connection: %d failed, pods %v: %v", what, r.Failed, r.Pods, r.Errors)
		}
	}
}

// checkOutsider wants a pod that isn't enrolled to get what it always got: one
// pod for each connection, called from the pod's own address; and nothing where
// nobody does anything about cluster IPs.
func (w *fixture) checkOutsider(t *testing.T, ip string) {
	t.Helper()
	if w.variant.Proxy == lab.NoProxy {
		r := call(t, w.outsider, echo.Spec{Protocol: echo.HTTP1, Target: ip + ":80", Requests: 1, Timeout: time.Second})
		if r.Failed != 1 {
			t.Errorf("without kube-proxy, a pod that is not enrolled reaches %s: %+v", ip, r)
		}
		return
	}
	r := call(t, w.outsider, echo.Spec{Protocol: echo.HTTP1, Target: ip + ":80", Requests: 30})
	own := w.outsider.IPs[0].String()
	if ip == web6 {
		own = w.outsider.IPs[1].String()
	}
	if r.Failed > 0 || len(r.Pods) != 1 || r.Peers[own] != 30 || r.Relayed > 0 {
		t.Errorf("from the pod that is not enrolled, %s, to %s: %+v", own, ip, r)
	}
}

// checkAccessLog wants lines that name Service and pod, for HTTP and for TCP;
// in pod mode the pod that called, too.
func (w *fixture) checkAccessLog(t *testing.T) {
	t.Helper()
	caller := w.client.IPs[0].String()
	if w.variant.Mode == lab.Pods {
		caller = "shop/client"
	}
	for _, want := range []string{"shop/web/http", "shop/web/grpc", "shop/web/tcp", "shop/web/plain"} {
		for _, pod := range w.web {
			check(t, lab.Until(limit(t), "the access log", func() error {
				for _, line := range w.envoy.AccessLog() {
					if strings.Contains(line, want) && strings.Contains(line, "shop/"+pod.Name) && strings.Contains(line, caller) {
						return nil
					}
				}
				return fmt.Errorf("no line has %s, shop/%s and %s", want, pod.Name, caller)
			}))
		}
	}
}
