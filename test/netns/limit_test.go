// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/test/netns/space"
	"github.com/nodevoy/nodevoy/test/tracer"
)

// most is the limit of connections in these tests.
const most = 3

// TestLimitByTracing: what becomes of a pod's next connection, by how many it has.
func TestLimitByTracing(t *testing.T) {
	for _, row := range []struct {
		what string
		open int
		full bool
		to   string
		want bool
	}{
		{"the last", most - 1, false, httpService, true},
		{"the first too many", most, false, httpService, false},
		{"of another class", most, false, detectService, false},
		{"lately too many", 0, true, tcpService, false},
		{"not redirected anyway", most, false, bypassed, false},
	} {
		for _, f := range family.All() {
			for _, mode := range []plan.Mode{plan.HostMode, plan.PodMode} {
				cfg := config(plan.DNAT, netfilter.NFT)
				cfg.Mode, cfg.MaxConnections = mode, most
				p := tracer.Packet{From: podAt(f, ownAddress).Addr(), To: at(f, row.to), In: "veth1", Out: "eth0", Open: row.open, Full: row.full}
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
			apply := func(limit uint32) {
				w.cfg.MaxConnections = limit
				node := view()
				node.Pods[1].Enrolled = true
				w.must(newApplier(t, w.cfg).Apply(t.Context(), plan.Compile(node, w.cfg)))
			}
			// As kube-proxy does with each change of a Service.
			others := func(iptables string) { w.Run(iptables + " -t nat -N SOMEBODY") }
			w.checkLimit(apply, func(command string) string { return w.Run(command) }, others, s.backend)
		})
	}
}

func TestLimitInPods(t *testing.T) {
	eachBackend(t, func(t *testing.T, b netfilter.Backend) {
		w := newPodFixture(t, b)
		w.envoyIn(w.enrolled, family.All()...)
		w.envoyIn(w.stranger, family.All()...)
		apply := func(limit uint32) {
			w.cfg.MaxConnections = limit
			w.node.Pods[1].Enrolled = true
			w.finder, w.pods = newPods(t, w.cfg, w.dir)
			w.must(w.apply())
		}
		w.checkLimit(apply, func(command string) string { return w.enrolled.Run(w.Node, command) }, func(string) {}, b)
	})
}

// checkLimit opens too many connections, closes some, and changes the limit. Run
// runs a command where the rules are; others do something with iptables.
func (w *fixture) checkLimit(apply func(limit uint32), run func(command string) string, others func(iptables string), b netfilter.Backend) {
	for _, f := range family.All() {
		apply(most)
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
		apply(most + 2)
		h.stay()
		h.counted()
		for range most + 2 {
			h.open(httpService, "http")
		}
		h.open(httpService, "pod")
		apply(0)
		h.open(httpService, "http")
		h.stay()
		if rules := run(command(b, f) + "-save"); strings.Contains(rules, "connlimit") {
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
