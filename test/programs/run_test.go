// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
)

const (
	// late is how much longer than without nodevoy a client may take: at once, or by the
	// median of pairs of calls in one of the rounds.
	late, pairs, rounds = 5 * time.Millisecond, 3, 8
	// firstLate is the same for the first call of all to a Service, which Envoy doesn't
	// know yet. Waiting for a client to speak first takes 500 ms.
	firstLate = 450 * time.Millisecond
)

// TestPrograms runs every client against every Service of its server, in both modes.
func TestPrograms(t *testing.T) {
	w := newFixture(t)
	w.serve(t, append(all(), recorder()))
	for _, mode := range []lab.Mode{lab.Host, lab.Pods} {
		t.Run(string(mode), func(t *testing.T) {
			w.start(t, mode)
			defer w.stop(t)
			var table []string
			for _, p := range all() {
				t.Run(p.name, func(t *testing.T) {
					for i, port := range p.ports {
						table = append(table, w.testPort(t, w.servers[p.name], i, port))
					}
				})
			}
			t.Run("recorder", func(t *testing.T) { w.testRecorder(t) })
			t.Logf("%-12s %-14s %-7s %-10s %s\n%s", "SERVER", "PORT", "CLASS", "FIRST", "LATEST CLIENT", strings.Join(table, "\n"))
		})
	}
}

// testPort makes all calls of a server to one of its Services, and returns a line of
// what was measured.
func (w *fixture) testPort(t *testing.T, s *server, i int, p port) string {
	t.Helper()
	at := s.at[i]
	name := strings.Trim(fmt.Sprintf("%s:%d/%s", p.name, p.number, p.app), "/")
	class := w.class(t, at)
	var first, worst time.Duration
	for n, c := range s.calls {
		if !c.isFor(p) {
			continue
		}
		direct, got := w.pair(t, s, c, at)
		if n == 0 {
			first = got.took - direct.took
		}
		if c.mayDiffer(class, w.mode) {
			continue
		}
		if judge(t, name, c, direct, got) && !c.untimed && (c.later == "" || class == "tcp") {
			worst = max(worst, w.testTime(t, s, c, i, got.took-direct.took))
		}
	}
	if first > firstLate && class != "detect" && s.calls[0].later == "" {
		t.Errorf("%s: the first client took %s longer than by kube-proxy, and the class is %s", name, first, class)
	}
	return fmt.Sprintf("%-12s %-14s %-7s %-10s %s", s.name, name, w.class(t, at), first.Round(100*time.Microsecond), worst.Round(10*time.Microsecond))
}

// pair runs a client through kube-proxy's stand-in, and through nodevoy.
func (w *fixture) pair(t *testing.T, s *server, c call, at netip.AddrPort) (direct, got outcome) {
	t.Helper()
	return must(w.run(t, w.direct, s, c, at))(t), must(w.run(t, w.client, s, c, at))(t)
}

// judge compares what a client saw with and without nodevoy, and says whether that is
// the same.
func judge(t *testing.T, name string, c call, direct, got outcome) bool {
	t.Helper()
	if (direct.status != 0) != c.fails || !strings.Contains(direct.output, c.want) {
		t.Errorf("%s: %s\nby kube-proxy: %s\nwant %q in it", name, c.run, direct, c.want)
		return false
	}
	if c.head {
		direct.output, got.output = canonicalResponse(direct.output), canonicalResponse(got.output)
	}
	if got.status != direct.status || got.output != direct.output {
		t.Errorf("%s: %s\nby kube-proxy: %s\nby nodevoy:    %s", name, c.run, direct, got)
		return false
	}
	return true
}

// testTime sees that a client is not later by nodevoy than without. What it was late
// once counts if it is little; else, as the machine may be busy, it is measured again.
func (w *fixture) testTime(t *testing.T, s *server, c call, i int, once time.Duration) time.Duration {
	t.Helper()
	least := once
	for range rounds {
		if least <= late {
			return least
		}
		var direct, got []time.Duration
		for range pairs {
			a, b := w.pair(t, s, c, s.at[i])
			direct, got = append(direct, a.took), append(got, b.took)
		}
		slices.Sort(direct)
		slices.Sort(got)
		least = min(least, got[pairs/2]-direct[pairs/2])
	}
	if least > late {
		t.Errorf("%s:%d: %s\ntook %s longer by nodevoy than by kube-proxy, want at most %s", s.ports[i].name, s.ports[i].number, c.run, least, late)
	}
	return least
}

// class is the class that the agent has for an address.
func (w *fixture) class(t *testing.T, at netip.AddrPort) string {
	t.Helper()
	text := must(w.node.StatusText(limit(t, 10*time.Second), "-o", "json", "--all"))(t)
	var status struct {
		Frontends []struct{ Address, Class, Bypass string }
	}
	check(t, json.Unmarshal([]byte(text), &status))
	for _, f := range status.Frontends {
		if f.Address == at.String() && f.Bypass == "" {
			return f.Class
		}
	}
	t.Errorf("%s is not redirected", at)
	return ""
}
