// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/tracer"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// most is the limit of connections in these tests.
const most = 3

// TestLimitByTracing: what becomes of a pod's next connection, by how many it has.
func TestLimitByTracing(t *testing.T) {
	for _, row := range []struct {
		what         string
		open, lately int
		full         bool
		to           string
		want         bool
	}{
		{"the last", most - 1, 0, false, httpService, true},
		{"the first too many", most, 0, false, httpService, false},
		{"of another class", most, 0, false, detectService, false},
		{"the last in a second", 0, most - 1, false, tcpService, true},
		{"the first too many in a second", 0, most, false, tcpService, false},
		{"lately too many", 0, 0, true, tcpService, false},
		{"not redirected anyway", most, most, false, bypassed, false},
	} {
		for _, f := range family.All() {
			for _, mode := range []plan.Mode{plan.HostMode, plan.PodMode} {
				cfg := config(plan.DNAT, netfilter.NFT)
				cfg.Mode, cfg.MaxConnections, cfg.MaxConnectionRate = mode, most, most
				p := tracer.Packet{From: podAt(f, ownAddress).Addr(), To: at(f, row.to), In: "veth1", Out: "eth0", Open: row.open, Lately: row.lately, Full: row.full}
				if mode == plan.PodMode {
					p.Pod = "shop/enrolled"
				}
				v, err := tracer.Trace(plan.Compile(view(), cfg), p)
				if err != nil || v.Listener.IsValid() != row.want || v.Rejected {
					t.Errorf("%s %s %s: listener %s, rejected %v, %v; rules met: %q", mode, f, row.what, v.Listener, v.Rejected, err, v.Steps)
				}
			}
		}
	}
}

func TestLimitOnHost(t *testing.T) {
	for _, s := range settings() {
		if s.mechanism != plan.DNAT || s.wiring == space.Bridged && !s.netfilter {
			continue
		}
		t.Run(s.String(), func(t *testing.T) {
			w := newFixture(t, s)
			w.must(w.applier.Prepare(t.Context(), w.plan))
			w.envoy(false)
			apply := func(limit, rate uint32) {
				w.cfg.MaxConnections, w.cfg.MaxConnectionRate = limit, rate
				node := view()
				node.Pods[1].Enrolled = true
				a, p := newApplier(t, w.cfg), plan.Compile(node, w.cfg)
				w.must(a.Apply(t.Context(), p))
				found, err := a.Drift(t.Context(), p)
				w.must(err)
				if len(found) > 0 {
					t.Errorf("with limits of %d and %d, there is drift at once: %v", limit, rate, found)
				}
			}
			// As kube-proxy does with each change of a Service.
			others := func(iptables string) { w.Run(iptables + " -t nat -N SOMEBODY") }
			run := func(command string) string { return w.Run(command) }
			w.checkLimit(apply, run, others, s.backend)
			w.checkRate(apply, run, s.backend)
			for _, rate := range []uint32{1, 5, 7, 700, 3_000, 99_999, 100_000} {
				apply(0, rate)
			}
		})
	}
}

func TestLimitInPods(t *testing.T) {
	eachBackend(t, func(t *testing.T, b netfilter.Backend) {
		w := newPodFixture(t, b)
		w.envoyIn(w.enrolled, family.All()...)
		w.envoyIn(w.stranger, family.All()...)
		apply := func(limit, rate uint32) {
			w.cfg.MaxConnections, w.cfg.MaxConnectionRate = limit, rate
			w.node.Pods[1].Enrolled = true
			w.finder, w.pods = newPods(t, w.cfg, w.dir)
			w.must(w.apply())
		}
		run := func(command string) string { return w.enrolled.Run(w.Node, command) }
		w.checkLimit(apply, run, func(string) {}, b)
		w.checkRate(apply, run, b)
	})
}

// checkLimit opens too many connections, closes some, and changes the limit. Run
// runs a command where the rules are; others do something with iptables.
func (w *fixture) checkLimit(apply func(limit, rate uint32), run func(command string) string, others func(iptables string), b netfilter.Backend) {
	for _, f := range family.All() {
		apply(most, 0)
		h := &holder{w, f, run, map[*space.Conn]string{}}
		// What isn't redirected doesn't count.
		for range most {
			h.open(bypassed, "pod")
			h.open(backend, "pod")
		}
		first := h.open(httpService, "http")
		h.open(tcpService, "tcp")
		h.open(detectService, "detect")
		left := h.open(httpService, "pod")
		for range most {
			h.open(detectService, "pod")
		}
		if got := space.Reached(w.stranger.Dial, at(f, httpService)); !strings.HasPrefix(got, "http ") {
			w.t.Errorf("%s: a pod below the limit reaches %s", f, got)
		}
		others(command(b, f))
		h.counted()
		again := h.open(tcpService, "pod")
		h.counted()
		h.close(left, again, first)
		h.open(httpService, "http")

		// Connections live on whatever becomes of the limit.
		apply(most+2, 0)
		h.stay()
		h.counted()
		for range most + 2 {
			h.open(httpService, "http")
		}
		h.open(httpService, "pod")
		apply(0, 0)
		h.open(httpService, "http")
		h.stay()
		if rules := run(command(b, f) + "-save"); strings.Contains(rules, "connlimit") {
			w.t.Errorf("%s: without a limit there is one: %s", f, rules)
		}
	}
}

// checkRate makes more connections in a second than are redirected, and waits.
func (w *fixture) checkRate(apply func(limit, rate uint32), run func(command string) string, b netfilter.Backend) {
	for _, f := range family.All() {
		const rate, burst = 2, 10
		apply(0, rate)
		h := &holder{w, f, run, nil}
		begin, redirected := time.Now(), 0
		for !strings.HasPrefix(space.Reached(w.enrolled.Dial, at(f, httpService)), "pod ") {
			redirected++
			if most := burst + 1 + rate*int(1+time.Since(begin)/time.Second); redirected > most {
				w.t.Fatalf("%s: %d connections in %s are redirected, want at most %d", f, redirected, time.Since(begin), most)
			}
		}
		if redirected < burst {
			w.t.Errorf("%s: %d connections at once are redirected, want %d", f, redirected, burst)
		}
		for to, want := range map[string]string{tcpService: "pod ", detectService: "pod ", bypassed: "pod "} {
			if got := space.Reached(w.enrolled.Dial, at(f, to)); !strings.HasPrefix(got, want) {
				w.t.Errorf("%s: %s is answered by %s, want %s: all classes count together", f, to, got, want)
			}
		}
		if got := space.Reached(w.stranger.Dial, at(f, httpService)); !strings.HasPrefix(got, "http ") {
			w.t.Errorf("%s: a pod below the limit reaches %s", f, got)
		}
		h.counted()
		if got := space.Reached(w.enrolled.Dial, at(f, tcpService)); !strings.HasPrefix(got, "tcp ") {
			w.t.Errorf("%s: later a connection reaches %s", f, got)
		}
		apply(0, 0)
		if rules := run(command(b, f) + "-save"); strings.Contains(rules, "hashlimit") {
			w.t.Errorf("%s: without a limit there is one: %s", f, rules)
		}
	}
}

// holder holds connections of the enrolled pod, with who answers them.
type holder struct {
	*fixture
	family family.Family
	run    func(command string) string
	held   map[*space.Conn]string
}

func (h *holder) open(to, want string) *space.Conn {
	h.t.Helper()
	c := h.hold(h.family, to, want)
	h.held[c] = want
	return c
}

func (h *holder) close(conns ...*space.Conn) {
	h.t.Helper()
	for _, c := range conns {
		delete(h.held, c)
		h.must(c.Reset())
	}
}

// stay checks that all that were opened are answered.
func (h *holder) stay() {
	h.t.Helper()
	for c, want := range h.held {
		h.stays(c, want)
	}
}

// counted waits until connections are counted again, after there were too many.
func (h *holder) counted() {
	h.t.Helper()
	set := plan.FullSet(h.family)
	space.Until(h.t, limit, "the end of a pod's time in "+set, func() error {
		if sets := h.run("ipset save " + set); strings.Contains(sets, "add ") {
			return errors.New(sets)
		}
		return nil
	})
}
