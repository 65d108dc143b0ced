// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/probe"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// settle waits until no rule refers to a set: nf_tables lets go of it a moment
// after the rule has gone.
func (w *fixture) settle() {
	w.t.Helper()
	space.Until(w.t, limit, "rules to let go of sets", func() error {
		for _, line := range strings.Split(w.Run("ipset list -t"), "\n") {
			if strings.HasPrefix(line, "References: ") && line != "References: 0" {
				return errors.New(line)
			}
		}
		return nil
	})
}

// hold opens a connection from the enrolled pod, and checks who takes it.
func (w *fixture) hold(f family.Family, to, want string) *space.Conn {
	w.t.Helper()
	c, err := w.enrolled.Dial(at(f, to))
	w.must(err)
	w.t.Cleanup(func() { _ = c.Close() })
	w.stays(c, want)
	return c
}

// stays checks that a connection is still answered, and by whom.
func (w *fixture) stays(c *space.Conn, want string) {
	w.t.Helper()
	got, err := c.Ask()
	if err != nil || !strings.HasPrefix(got, want+" ") {
		w.t.Errorf("a held connection is answered %q, %v; want %s", got, err, want)
	}
}

// TestConnectionsLive: a connection stays with whom it began with, whatever
// happens to redirection, and only new ones take the new way.
func TestConnectionsLive(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		w := newFixture(t, s)
		w.must(w.applier.Prepare(t.Context(), w.plan))
		w.envoy(s.mechanism == plan.TPROXY)
		var begunBefore, redirected []*space.Conn
		all := func(conns []*space.Conn, want string) {
			t.Helper()
			for _, c := range conns {
				w.stays(c, want)
			}
		}
		reaches := func(want string) {
			t.Helper()
			w.checkTruths([]truth{{from: "enrolled", to: httpService, want: want}})
		}
		for _, f := range family.All() {
			begunBefore = append(begunBefore, w.hold(f, httpService, "pod"))
		}
		w.must(w.applier.Apply(t.Context(), w.plan))
		all(begunBefore, "pod")
		for _, f := range family.All() {
			redirected = append(redirected, w.hold(f, httpService, "http"))
		}

		w.must(w.applier.Disengage())
		reaches("pod")
		all(redirected, "http")

		w.must(w.applier.Apply(t.Context(), w.plan))
		reaches("http")

		// The frontend leaves its set.
		none := view()
		none.Frontends = nil
		w.must(w.applier.Withdraw(t.Context(), plan.Compile(none, w.cfg)))
		reaches("pod")
		all(redirected, "http")

		// A new agent takes over.
		next := newApplier(t, w.cfg)
		w.must(next.Withdraw(t.Context(), w.plan))
		w.must(next.Apply(t.Context(), w.plan))
		reaches("http")
		all(redirected, "http")
		all(begunBefore, "pod")
	})
}

// TestPortReuse: a busy client uses a port again while the connection before,
// which Envoy closed, is in TIME_WAIT on Envoy's side; also when it is not
// redirected any more.
func TestPortReuse(t *testing.T) {
	each(t, func(t *testing.T, s setting) {
		w := newFixtureApplied(t, s)
		for _, f := range family.All() {
			for range 3 {
				c, err := w.enrolled.DialFrom(at(f, httpService), 40000)
				if err != nil {
					t.Fatalf("%s: %v", f, err)
				}
				w.stays(c, "http")
				w.must(c.Goodbye())
				w.must(c.Close())
			}
		}
		w.must(w.applier.Disengage())
		for _, f := range family.All() {
			c, err := w.enrolled.DialFrom(at(f, httpService), 40000)
			if err != nil {
				t.Fatalf("%s after Release: %v", f, err)
			}
			// By tproxy only the SYN gets by: see the limit in rules.go.
			if s.mechanism == plan.DNAT {
				w.stays(c, "pod")
				w.must(c.Goodbye())
			}
			w.must(c.Reset())
		}
		if left := w.Run("ss -Htan state time-wait"); !strings.Contains(left, ":40000") {
			t.Errorf("no connection is in TIME_WAIT, so nothing is shown: %q", left)
		}
	})
}

// TestDeadMansSwitch: without Refresh the kernel itself stops redirecting new
// connections, and those that exist live on.
func TestDeadMansSwitch(t *testing.T) {
	for _, s := range []setting{ways()[0], ways()[2]} {
		t.Run(s.String(), func(t *testing.T) {
			w := newFixture(t, s)
			w.cfg.Timeout = 3 * time.Second
			w.applier = newApplier(t, w.cfg)
			w.plan = plan.Compile(view(), w.cfg)
			w.must(w.applier.Prepare(t.Context(), w.plan))
			w.envoy(s.mechanism == plan.TPROXY)
			w.must(w.applier.Apply(t.Context(), w.plan))
			held := w.hold(family.V4, httpService, "http")

			// Refreshed, it goes on for longer than the timeout.
			end := time.Now().Add(w.cfg.Timeout + time.Second)
			space.Until(t, 2*w.cfg.Timeout, "time to pass", func() error {
				w.must(w.applier.Refresh(t.Context()))
				if time.Now().After(end) {
					return nil
				}
				return errors.New("not yet")
			})
			w.checkTruths([]truth{{from: "enrolled", to: httpService, want: "http"}})

			// The agent is gone.
			w.must(w.applier.Close())
			w.switchFalls()
			w.stays(held, "http")
		})
	}
}

// switchFalls wants new connections of the enrolled pod to take kube-proxy's way
// within the timeout, now that nobody renews it.
func (w *fixture) switchFalls() {
	w.t.Helper()
	gone := time.Now()
	space.Until(w.t, w.cfg.Timeout+2*time.Second, "the switch", func() error {
		for _, f := range family.All() {
			if got := w.reached(w.enrolled, f, httpService); !strings.HasPrefix(got, "pod ") {
				return fmt.Errorf("%s: %s", f, got)
			}
		}
		return nil
	})
	w.t.Logf("with a timeout of %s new connections took kube-proxy's way after %s", w.cfg.Timeout, time.Since(gone))
}

// TestReleaseIsFast: also while a large Apply is under way, which then engages
// nothing.
func TestReleaseIsFast(t *testing.T) {
	w := newFixture(t, ways()[0])
	big := plan.Compile(thousands(20000), w.cfg)
	empty := plan.Compile(thousands(0), w.cfg)
	var slowest time.Duration
	for round := range 5 {
		w.must(w.applier.Apply(t.Context(), empty))
		w.applier.Forget()
		applied := make(chan error, 1)
		w.Go(func() { applied <- w.applier.Apply(t.Context(), big) })
		// Members are on their way in.
		space.Until(t, limit, "Apply to be at work", func() error {
			if strings.Contains(w.Run("ipset list -t nodevoy-http4"), "Number of entries: 0\n") {
				return errors.New("not yet")
			}
			return nil
		})
		begin := time.Now()
		w.must(w.applier.Disengage())
		slowest = max(slowest, time.Since(begin))
		err := <-applied
		if err != nil && !errors.Is(err, apply.ErrDisengaged) {
			t.Fatal(err)
		}
		if err == nil {
			t.Logf("round %d: Apply had ended", round)
		}
		if strings.Contains(w.Run("ipset list nodevoy-pods4"), "10.1.0.2 ") {
			t.Error("a pod is redirected after Disengage")
		}
	}
	t.Logf("slowest Disengage: %s", slowest)
	if slowest > 50*time.Millisecond {
		t.Errorf("Disengage took %s", slowest)
	}
}

// TestFirewall: hosts whose INPUT drops let redirected connections in, and
// nothing else.
func TestFirewall(t *testing.T) {
	for _, s := range append(ways(), setting{plan.TPROXY, netfilter.NFT, space.Unnumbered, false, "nftables"}) {
		t.Run(s.String(), func(t *testing.T) {
			w := newFixture(t, s)
			for _, f := range family.All() {
				c := command(s.backend, f)
				w.Run(c + " -P INPUT DROP")
				w.Run(c + " -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
				w.Run(c + " -A INPUT -p icmpv6 -j ACCEPT")
				w.Run(c + " -A INPUT -j DROP")
			}
			w.must(w.applier.Prepare(t.Context(), w.plan))
			w.envoy(s.mechanism == plan.TPROXY)
			w.must(w.applier.Apply(t.Context(), w.plan))
			w.checkTruths(truths())
			// Once is enough: it is a timeout.
			if s != ways()[0] {
				return
			}
			if got := w.reached(w.enrolled, family.V4, "node"); !strings.HasPrefix(got, "failed") {
				t.Errorf("the node itself: %s, want a timeout", got)
			}
		})
	}
}

// TestWithoutIPv6: IPv4 is redirected on a node that has no IPv6.
func TestWithoutIPv6(t *testing.T) {
	w := newFixture(t, ways()[0])
	w.Sysctl("net/ipv6/conf/lo/disable_ipv6=1")
	cfg := plan.DefaultConfig()
	cfg.Mode = plan.HostMode
	found, err := probe.Run(t.Context(), cfg, netns.DefaultConfig(), zap.NewNop())
	w.must(err)
	if len(found.Families) != 1 || found.Families[0] != family.V4 {
		t.Fatalf("families %v, want ipv4 only; %q", found.Families, found.Reasons)
	}
	w.cfg = found.Resolve(cfg)
	w.plan = plan.Compile(view(), w.cfg)
	w.applier = newApplier(t, w.cfg)
	w.must(w.applier.Prepare(t.Context(), w.plan))
	for _, c := range model.Classes() {
		w.Listen(c.String(), listener(w.cfg, family.V4, c.String()+"-listener"), false)
	}
	w.must(w.applier.Apply(t.Context(), w.plan))
	if got, want := w.reached(w.enrolled, family.V4, httpService), "http "+at(family.V4, httpService).String(); got != want {
		t.Errorf("reached %s, want %s", got, want)
	}
	w.must(w.applier.Cleanup(t.Context()))
}

// TestProbe: what the probe finds on real nodes, and that it leaves no trace.
func TestProbe(t *testing.T) {
	for _, tc := range []struct {
		setting
		mechanism plan.Mechanism
		proxy     string
	}{
		{setting{"", netfilter.NFT, space.Unnumbered, false, "iptables"}, plan.DNAT, "iptables"},
		{setting{"", netfilter.Legacy, space.Unnumbered, false, "iptables"}, plan.DNAT, "iptables"},
		{setting{"", netfilter.NFT, space.Unnumbered, false, "nftables"}, plan.TPROXY, "nftables"},
	} {
		t.Run(tc.String(), func(t *testing.T) {
			w := &fixture{Node: space.New(t), t: t}
			w.kubeProxy(tc.setting)
			w.useTables()
			if tc.proxy == "iptables" {
				w.Run(command(tc.backend, family.V4) + " -t mangle -N KUBE-IPTABLES-HINT")
			}
			before := w.snapshot()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			cfg := plan.DefaultConfig()
			cfg.Mode = plan.HostMode
			got, err := probe.Run(ctx, cfg, netns.DefaultConfig(), zap.NewNop())
			w.must(err)
			if got.Mechanism != tc.mechanism || got.Backend != tc.backend || got.ProxyMode != tc.proxy || len(got.Families) != 2 {
				t.Errorf("found %+v", got)
			}
			if after := w.snapshot(); after != before {
				t.Errorf("the probe has left something:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}
