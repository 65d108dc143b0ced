// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// TestScale: with 10,000 Services of 10 endpoints in the cluster, an Envoy that
// uses none of them, and one that uses ten, hold no more than with 10 Services.
func TestScale(t *testing.T) {
	web := webServer(t, "10.244.0.1:8080", "web-0")
	memory := map[int][2]int{}
	for _, n := range []int{10, 10_000} {
		services := manyServices(n, web)
		node := nodeOf(t, services...)
		r := newFixture(t, node)
		start := r.rss()
		for i := range 10 {
			mustGet(t, services[i].frontend, "web-0")
		}
		memory[n] = [2]int{start, r.rss()}
		began := time.Now()
		r.server.Publish(nodeOf(t, services...), nil)
		t.Logf("%d Services: Envoy has %d kB at the start, %d kB with ten in use; building and publishing takes %v", n, start, r.rss(), time.Since(began))
		eventually(t, time.Second, func() error {
			if st := r.server.Status(); !st.Settled || st.InUse != 10 {
				return fmt.Errorf("want ten in use: %+v", st)
			}
			return nil
		})
		r.endEnvoy(r.envoy)
		r.stop()
	}
	for i, what := range []string{"at the start", "with ten in use"} {
		few, many := memory[10][i], memory[10_000][i]
		if many > few*11/10 {
			t.Errorf("%s: %d kB with 10,000 Services, %d kB with 10: more than a tenth above", what, many, few)
		}
	}
}

// manyServices makes n Services; the first ten lead to the server at web, the
// others to ten addresses each where nobody is.
func manyServices(n int, web string) []service {
	var out []service
	for i := range n {
		s := service{name: fmt.Sprintf("web-%d", i), frontend: fmt.Sprintf("10.96.1.%d:80", i+1), backends: []string{web}}
		if i >= 10 {
			s.frontend = fmt.Sprintf("10.98.%d.%d:80", i/250, i%250)
			s.backends = nil
			for k := range 10 {
				s.backends = append(s.backends, fmt.Sprintf("10.%d.%d.%d:8080", 100+k, i/250, i%250))
			}
		}
		out = append(out, s)
	}
	return out
}

// rss is the resident memory of Envoy in kB.
func (r *fixture) rss() int {
	r.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.envoy.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(text)
	if found == nil {
		r.t.Fatalf("no VmRSS in %s", text)
	}
	kB, err := strconv.Atoi(string(found[1]))
	if err != nil {
		r.t.Fatal(err)
	}
	return kB
}
