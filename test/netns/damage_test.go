// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// damage is what somebody else does to a node that redirects.
type damage struct {
	what string
	// commands are run on the node. IPT is the iptables command of the backend,
	// for IPv4; IPT6 for IPv6; TABLE the table in which connections are caught.
	commands []string
	// want are kinds of drift that must be found.
	want []string
	// tproxy is set for what only tproxy has; routing for what costs it its
	// route besides.
	tproxy, routing bool
}

func damages() []damage {
	return []damage{
		{what: "firewall flushed", commands: []string{"IPT -t TABLE -F", "IPT -t TABLE -X", "IPT -F", "IPT -X"}, want: []string{apply.DriftChain, apply.DriftJump}},
		{what: "IPv6 firewall flushed", commands: []string{"IPT6 -t TABLE -F", "IPT6 -t TABLE -X"}, want: []string{apply.DriftChain, apply.DriftJump}},
		{what: "jump deleted", commands: []string{"IPT -t TABLE -D PREROUTING -p tcp -j NODEVOY-PREROUTING"}, want: []string{apply.DriftJump}},
		{what: "jump no longer first", commands: []string{"IPT -t TABLE -I PREROUTING 1 -p tcp -j RETURN"}, want: []string{apply.DriftJump}},
		{what: "jump twice", commands: []string{"IPT -t TABLE -A PREROUTING -p tcp -j NODEVOY-PREROUTING"}, want: []string{apply.DriftJump}},
		{what: "own chain emptied", commands: []string{"IPT -t TABLE -F NODEVOY-PREROUTING"}, want: []string{apply.DriftChain}},
		{what: "rule in own chain", commands: []string{"IPT -t TABLE -I NODEVOY-PREROUTING 1 -j RETURN"}, want: []string{apply.DriftChain}},
		{what: "frontends emptied", commands: []string{"ipset flush nodevoy-http4"}, want: []string{apply.DriftMembers}},
		{what: "frontend added", commands: []string{"ipset add nodevoy-tcp4 192.0.2.99,tcp:1"}, want: []string{apply.DriftMembers}},
		{what: "pods emptied", commands: []string{"ipset flush"}, want: []string{apply.DriftMembers}},
		{what: "mangle flushed", commands: []string{"IPT -t mangle -F"}, want: []string{apply.DriftChain, apply.DriftJump}},
		{what: "sets destroyed", commands: []string{"IPT -t TABLE -F", "IPT6 -t TABLE -F", "IPT -t mangle -F", "IPT6 -t mangle -F", "IPT -t raw -F", "IPT6 -t raw -F", "SETTLE", "ipset destroy"}, want: []string{apply.DriftSet, apply.DriftChain, apply.DriftJump}},
		{what: "set of other options", commands: []string{"ipset create other hash:ip,port", "ipset swap other nodevoy-http4"}, want: []string{apply.DriftSet}},
		{what: "addresses flushed", commands: []string{"ip address flush dev lo"}, want: []string{apply.DriftAddress}, routing: true},
		{what: "policy rule deleted", commands: []string{"ip rule del priority 1064"}, want: []string{apply.DriftRouting}, tproxy: true},
		{what: "route flushed", commands: []string{"ip -6 route flush table 1064"}, want: []string{apply.DriftRouting}, tproxy: true},
	}
}

// TestRepair: every damage is seen, and repaired by the next Apply so that
// connections take their way again.
func TestRepair(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		for _, d := range damages() {
			if d.tproxy && s.mechanism != plan.TPROXY {
				continue
			}
			t.Run(d.what, func(t *testing.T) {
				w := newFixtureApplied(t, s)
				table := map[plan.Mechanism]string{plan.DNAT: "nat", plan.TPROXY: "mangle"}[s.mechanism]
				before := ours(w.snapshot())
				for _, c := range d.commands {
					if c == "SETTLE" {
						w.settle()
						continue
					}
					w.Run(strings.NewReplacer("IPT6", command(s.backend, family.V6), "IPT", command(s.backend, family.V4), "TABLE", table).Replace(c))
				}
				want := d.want
				if d.routing && s.mechanism == plan.TPROXY {
					want = append(want, apply.DriftRouting)
				}
				w.checkDrift(want)
				w.must(w.applier.Apply(t.Context(), w.plan))
				if diff := cmp.Diff(before, ours(w.snapshot())); diff != "" {
					t.Errorf("after the repair (-before +after):\n%s", diff)
				}
				found, err := w.applier.Drift(t.Context(), w.plan)
				w.must(err)
				if len(found) > 0 {
					t.Errorf("after the repair: %v", found)
				}
				if d.what != "addresses flushed" { // which took 127.0.0.1 and the listeners' bind with them
					w.checkTruths([]truth{{from: "enrolled", to: httpService, want: "http"}, {from: "enrolled", to: tcpService, want: "tcp"}})
				}
			})
		}
	})
}

// checkDrift checks that these kinds of drift, and no others, are found.
func (w *fixture) checkDrift(want []string) {
	w.t.Helper()
	found, err := w.applier.Drift(w.t.Context(), w.plan)
	w.must(err)
	for _, kind := range want {
		if !slices.ContainsFunc(found, func(d apply.Drift) bool { return d.Kind == kind }) {
			w.t.Errorf("no drift of kind %s in %v", kind, found)
		}
	}
	for _, d := range found {
		if !slices.Contains(want, d.Kind) {
			w.t.Errorf("unexpected drift %v", d)
		}
		if d.Detail == "" {
			w.t.Errorf("drift without detail: %v", d)
		}
	}
}

// TestUnreadable: a native nft rule in the kernel's chain hides our jump from
// iptables. Then Apply must not insert another one, time and again.
func TestUnreadable(t *testing.T) {
	w := newFixtureApplied(t, ways()[0])
	before := strings.Count(w.Run("nft list chain ip nat PREROUTING"), "NODEVOY")
	w.Run("nft add rule ip nat PREROUTING tcp dport { 99, 100 } dnat to numgen inc mod 2 map { 0: 192.0.2.1, 1: 192.0.2.2 }")
	for range 3 {
		if _, err := w.applier.Drift(t.Context(), w.plan); err == nil || !strings.Contains(err.Error(), "PREROUTING") {
			t.Errorf("Drift: %v, want an error that names the chain", err)
		}
		if err := w.applier.Apply(t.Context(), w.plan); err == nil || !strings.Contains(err.Error(), "made by nft") {
			t.Errorf("Apply: %v, want an error that says why", err)
		}
	}
	if after := strings.Count(w.Run("nft list chain ip nat PREROUTING"), "NODEVOY"); after != before {
		t.Errorf("%d jumps, before %d", after, before)
	}
	// IPv6 goes on all the same.
	if got, want := w.reached(w.enrolled, family.V6, httpService), "http "+at(family.V6, httpService).String(); got != want {
		t.Errorf("IPv6: %s, want %s", got, want)
	}
}
