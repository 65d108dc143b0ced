// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// The size of a large cluster, and how long an agent may take to redirect in
// one. The target is 5 s of having the objects; here the API server that lists
// them shares two cores with the agent, Envoy and other tests.
const (
	manyServices        = 10_000
	endpointsEach       = 10
	startLimit          = 15 * time.Second
	envoyGrowthPerCent  = 10
	agentMemoryLimitMiB = 250
)

// TestScale sees what a node pays for 10,000 Services with 100,000 endpoints
// that it doesn't use: the same rules, the same Envoy, and a start in seconds.
func TestScale(t *testing.T) {
	w := newFixture(t)
	w.setNamespace(t, "enabled")
	small := w.measure(t)
	began := time.Now()
	w.server.Fill(t, manyServices, endpointsEach)
	t.Logf("filled in %v", time.Since(began).Round(time.Second))
	large := w.measure(t)

	t.Logf("one Service: %+v", small)
	t.Logf("%d Services: %+v", manyServices, large)
	if large.start > startLimit {
		t.Errorf("redirecting %v after the agent's start, want at most %v", large.start, startLimit)
	}
	if large.frontends != small.frontends+manyServices {
		t.Errorf("%d frontends in the kernel, %d with one Service", large.frontends, small.frontends)
	}
	if large.rules != small.rules {
		t.Errorf("%d rules of our own, %d with one Service", large.rules, small.rules)
	}
	if large.envoyMiB > small.envoyMiB*(100+envoyGrowthPerCent)/100 {
		t.Errorf("Envoy takes %d MiB, %d with one Service", large.envoyMiB, small.envoyMiB)
	}
	if large.agentMiB > agentMemoryLimitMiB {
		t.Errorf("the agent takes %d MiB, want at most %d", large.agentMiB, agentMemoryLimitMiB)
	}
}

// cost is what redirection costs a node.
type cost struct {
	// start is from the agent's start to redirection; change is from a change
	// of a Service's endpoints to 60 requests answered accordingly.
	start, change time.Duration
	// rules are the lines of iptables and policy routes that are ours, and
	// frontends the HTTP ones of IPv4 that the kernel redirects.
	rules, frontends   int
	agentMiB, envoyMiB int64
}

// measure starts agent and Envoy, measures, and ends them.
func (w *fixture) measure(t testing.TB) cost {
	t.Helper()
	var c cost
	began := time.Now()
	w.start(t)
	until(t, time.Minute, "redirection", w.client.Redirected)
	c.start = time.Since(began)
	c.envoyMiB = must(w.envoy.RSS())(t) >> 20
	c.rules = len(must(w.node.OwnRules(t.Context()))(t))
	c.frontends = w.entries(t, "nodevoy-http4")
	until(t, soon, "calls through Envoy", w.answers(web4+":80", true, w.web...))
	w.setWeb(t, w.web[0])
	c.change = until(t, soon, "the change of endpoints", w.answers(web4+":80", true, w.web[0]))
	w.setWeb(t, w.web...)
	until(t, soon, "the change back", w.answers(web4+":80", true, w.web...))
	c.agentMiB = must(w.agent.RSS())(t) >> 20
	check(t, w.agent.Stop(10*time.Second))
	check(t, w.envoy.Stop(10*time.Second))
	check(t, w.node.Cleanup(t.Context()))
	return c
}

// entries is the number of entries of one of the node's ipsets.
func (w *fixture) entries(t testing.TB, set string) int {
	t.Helper()
	const label = "Number of entries: "
	for line := range strings.Lines(must(w.node.Run(t.Context(), "ipset", "list", "-terse", set))(t)) {
		if count, ok := strings.CutPrefix(strings.TrimSpace(line), label); ok {
			return must(strconv.Atoi(count))(t)
		}
	}
	t.Fatalf("no count of entries in %s", set)
	return 0
}
