// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// discoveryTimeout is the agent's default, and slack what a loaded machine may
// add to it.
const (
	discoveryTimeout = 2 * time.Second
	slack            = 500 * time.Millisecond
)

// TestUnknownFrontend forces connections into Envoy that no Service has the
// address of: Envoy must not hang, and must not proxy them anywhere.
func TestUnknownFrontend(t *testing.T) { each(t, modes(), testUnknown) }

func testUnknown(t *testing.T, w *fixture) {
	w.start(t)
	for _, c := range []struct{ set, protocol string }{
		{"nodevoy-http4", echo.HTTP1}, {"nodevoy-tcp4", echo.TCP}, {"nodevoy-detect4", echo.HTTP1},
	} {
		target := map[string]string{"nodevoy-http4": "10.96.9.1", "nodevoy-tcp4": "10.96.9.2", "nodevoy-detect4": "10.96.9.3"}[c.set]
		for i, want := range []time.Duration{100 * time.Millisecond, discoveryTimeout + slack, discoveryTimeout + slack} {
			r := w.callForced(t, c.set, echo.Spec{Protocol: c.protocol, Target: target + ":80", Requests: 1, Timeout: 4 * time.Second})
			if r.Failed != 1 || r.First > want {
				t.Errorf("%s, connection %d to an unknown frontend: %d failed after %s (%v), want 1 within %s",
					c.set, i+1, r.Failed, r.First, r.Errors, want)
			}
			t.Logf("%s, connection %d: %s, %v", c.set, i+1, r.First, r.Errors)
		}
	}
}

// callForced adds the target to a set of frontends and calls it. The agent takes
// foreign members away as drift; a call that came just after that never met
// Envoy, gets no answer from anybody, and is made again.
func (w *fixture) callForced(t *testing.T, set string, spec echo.Spec) echo.Result {
	t.Helper()
	member := strings.TrimSuffix(spec.Target, ":80") + ",tcp:80"
	for range 5 {
		_, err := w.netns().Run(limit(t), "ipset", "-exist", "add", set, member)
		check(t, err)
		r := call(t, w.client, spec)
		if r.First < spec.Timeout {
			return r
		}
	}
	t.Fatalf("five calls to %s were never redirected", spec.Target)
	return echo.Result{}
}

// TestServiceMadeAgain deletes a Service that is in use and makes it again with
// the same cluster IP.
func TestServiceMadeAgain(t *testing.T) { each(t, modes(), testMadeAgain) }

func testMadeAgain(t *testing.T, w *fixture) {
	w.start(t)
	ask := func() echo.Result {
		return call(t, w.client, echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Requests: 3, Fresh: true, Timeout: time.Second})
	}
	for round := range 3 {
		if r := ask(); r.Failed > 0 {
			t.Fatalf("round %d: %v", round, r.Errors)
		}
		w.Objects().DeleteService("shop", "web")
		check(t, w.Publish(limit(t)))
		w.untilFrontend(t, "10.96.0.10", false)
		if r := ask(); r.Failed != r.Requests {
			t.Errorf("round %d: a deleted Service answered: %v", round, r.Pods)
		}
		w.setWeb(t, w.web...)
		// By kube-proxy or by Envoy, whichever has it first: no call may fail.
		if r := ask(); r.Failed > 0 {
			t.Errorf("round %d, at once: %v", round, r.Errors)
		}
		w.untilFrontend(t, "10.96.0.10", true)
		r := ask()
		if r.Failed > 0 || r.First > 300*time.Millisecond {
			t.Errorf("round %d, by Envoy: first after %s, %v", round, r.First, r.Errors)
		}
		w.allThroughEnvoy(t, r)
	}
}

// untilFrontend waits until the kernel redirects connections for an IPv4
// cluster IP, or does no longer.
func (w *fixture) untilFrontend(t *testing.T, ip string, want bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	check(t, lab.Until(ctx, "the frontend "+ip, func() error {
		_, err := w.netns().Run(ctx, "ipset", "test", "nodevoy-http4", ip+",tcp:80")
		if (err == nil) != want {
			return fmt.Errorf("in the set: %v, want %v", err == nil, want)
		}
		return nil
	}))
}

// TestBackendsChange removes and adds backends under load: no request may fail.
func TestBackendsChange(t *testing.T) { each(t, modes(), testBackendsChange) }

func testBackendsChange(t *testing.T, w *fixture) {
	w.start(t)
	load := must(w.client.Load(echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Rate: 200, Connections: 4}))(t)
	for _, pods := range [][]*lab.Pod{w.web[:1], w.web[1:], w.web[:2], w.web} {
		w.setWeb(t, pods...)
		from := time.Now()
		check(t, lab.Until(limit(t), "the new backends", func() error {
			seen := map[string]int{}
			records := load.Since(from)
			for _, r := range records[max(0, len(records)-20):] {
				seen[r.Pod]++
			}
			if len(records) < 20 || len(seen) != len(pods) {
				return fmt.Errorf("the last of %d requests went to %v", len(records), seen)
			}
			return nil
		}))
		t.Logf("%d backends in use after %s", len(pods), time.Since(from))
	}
	w.allThroughEnvoy(t, stop(t, "HTTP/1.1", load))
}
