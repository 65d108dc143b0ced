// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// The size of a large cluster.
const (
	manyServices = 10_000
	manyBackends = 10 // of each Service
)

// startLimit is within what time an agent is to redirect once it has the
// objects. Reading 100,000 endpoints from YAML comes before that.
const startLimit = 5 * time.Second

// footprint is what a node pays for a cluster of some size.
type footprint struct {
	started  time.Duration
	applied  time.Duration // of it, since the objects were read
	rules    int
	envoyRSS int64
}

// TestScale compares a small cluster with one of 10,000 Services and 100,000
// endpoints: the same number of rules, the same memory of Envoy.
func TestScale(t *testing.T) {
	for _, v := range modes() {
		t.Run(v.name, func(t *testing.T) { compareSizes(t, v) })
	}
}

func compareSizes(t *testing.T, v variant) {
	var small, large footprint
	t.Run("10 Services", func(t *testing.T) { small = measure(t, v, 10) })
	t.Run("10,000 Services", func(t *testing.T) { large = measure(t, v, manyServices) })
	if small.rules != large.rules || small.rules == 0 {
		t.Errorf("%d rules with 10 Services, %d with %d; want as many", small.rules, large.rules, manyServices)
	}
	if float64(large.envoyRSS) > 1.1*float64(small.envoyRSS) {
		t.Errorf("Envoy has %d KiB with 10 Services, %d KiB with %d; want at most a tenth more",
			small.envoyRSS>>10, large.envoyRSS>>10, manyServices)
	}
}

// measure runs agent and Envoy on a cluster of so many Services.
func measure(t *testing.T, v variant, services int) footprint {
	t.Helper()
	w := newFixture(t, v)
	writeServices(t, services-1, manyBackends)
	w.startEnvoy(t)
	w.startAgent(t)
	var f footprint
	f.started = must(w.agent.WaitRedirected(limit(t), w.client))(t)
	w.untilSettled(t)
	status := must(w.node.Status(limit(t)))(t)
	f.applied = status.RedirectingSince.Sub(status.ObjectsRead)
	if status.ObjectsRead.IsZero() || f.applied <= 0 || f.applied > startLimit {
		t.Errorf("redirecting %s after the objects were read, want within %s", f.applied, startLimit)
	}
	// shop/web has two HTTP ports, every other Service one.
	members := must(w.netns().Run(limit(t), "sh", "-c", "ipset list nodevoy-http4 | grep -c ,tcp:"))(t)
	if want := fmt.Sprint(services + 1); strings.TrimSpace(members) != want {
		t.Errorf("%s frontends are redirected as HTTP, want %s", strings.TrimSpace(members), want)
	}
	r := call(t, w.client, echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Requests: 300})
	if r.Failed > 0 {
		t.Errorf("%d of 300 requests failed: %v", r.Failed, r.Errors)
	}
	w.allThroughEnvoy(t, r)
	f.rules = len(must(w.netns().OwnRules(limit(t)))(t))
	f.envoyRSS = must(w.envoy.RSS())(t)
	agentRSS := must(w.agent.RSS())(t)
	t.Logf("%d Services: redirecting after %s, %s after all was read, %d rules, Envoy %d MiB, agent %d MiB, first request %s",
		services, f.started.Round(time.Millisecond), f.applied.Round(time.Millisecond), f.rules, f.envoyRSS>>20, agentRSS>>20, r.First)
	check(t, w.agent.Stop(endLimit))
	check(t, w.envoy.Stop(endLimit))
	check(t, w.node.Cleanup(limit(t)))
	return f
}

// writeServices adds Services with so many backends each, whose pods are on nodes
// far away, 100 to a file.
func writeServices(t *testing.T, services, backends int) {
	t.Helper()
	const each = 100
	for from := 0; from < services; from += each {
		var text bytes.Buffer
		for i := from; i < min(from+each, services); i++ {
			writeService(&text, i, backends)
		}
		file := filepath.Join(lab.Dir, "objects", fmt.Sprintf("many-%05d.yaml", from))
		check(t, os.WriteFile(file, text.Bytes(), 0o600))
	}
}

// writeService writes one Service and its EndpointSlice.
func writeService(text *bytes.Buffer, i, backends int) {
	fmt.Fprintf(text, `---
apiVersion: v1
kind: Service
metadata: {namespace: many, name: svc-%[1]d, uid: many-%[1]d}
spec:
  type: ClusterIP
  clusterIP: 10.97.%[2]d.%[3]d
  clusterIPs: [10.97.%[2]d.%[3]d]
  ipFamilies: [IPv4]
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP, appProtocol: http}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: many, name: svc-%[1]d-a, labels: {kubernetes.io/service-name: svc-%[1]d}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
`, i, i/250, i%250)
	for j := range backends {
		n := i*backends + j
		fmt.Fprintf(text, "- {addresses: [10.%d.%d.%d], conditions: {ready: true, serving: true}, nodeName: far-%d, zone: zone-%d, "+
			"targetRef: {kind: Pod, namespace: many, name: svc-%d-%d}}\n", 128+n/60_000, n/250%240, n%250, n%1000, n%3, i, j)
	}
}
