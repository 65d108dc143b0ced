// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/server"
)

// list is how the fixture lists connections.
func (b *fixture) list(found func(netip.AddrPort, bool)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.samples++
	for _, to := range b.connections {
		found(to, true)
	}
	return b.connectionsErr
}

// sampled counts how often connections were listed.
func (b *fixture) sampled() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.samples
}

// theService and theOther are the frontends of the fixture's Services.
func theService() netip.AddrPort { return netip.MustParseAddrPort("10.96.0.10:80") }
func theOther() netip.AddrPort   { return netip.MustParseAddrPort("10.96.0.11:5432") }

// withShortFixture is withFixture with two Services, so that one can be left.
func withShortFixture(t *testing.T, f func(t *testing.T, b *fixture)) {
	t.Helper()
	withPreparedFixture(t, func(b *fixture) { b.inputs = twoServices() }, f)
}

// short has both Services in use, this one with most of more memory than there is to
// be, and these connections.
func (b *fixture) short(connections ...netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	const more, less = 110 << 20, 90 << 20
	b.uses = []server.Use{
		{Frontend: theOther(), Port: model.ServicePort{Namespace: "demo", Service: "db", PortName: "tcp", Port: 5432}, Memory: less, Number: 1},
		{Frontend: theService(), Port: model.ServicePort{Namespace: "demo", Service: "web", PortName: "http", Port: 80}, Memory: more, Number: 2},
	}
	b.status.Memory = more + less
	b.connections = connections
}

// redirects says whether a plan redirects to the address.
func redirects(p *plan.Plan, to netip.AddrPort) bool {
	for _, f := range p.Families {
		for _, s := range f.Frontends {
			if slices.Contains(s.Members, to) {
				return true
			}
		}
	}
	return false
}

// TestLeaving: what takes too much of Envoy's memory leaves the kernel once nobody
// uses it, and Envoy only after that, when still nobody does.
func TestLeaving(t *testing.T) {
	withShortFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.short(theService(), theOther())
		pass(10 * time.Second)
		if !redirects(b.planned(), theService()) || !b.serves(theService()) {
			t.Fatal("a Service in use was left to kube-proxy")
		}
		b.mu.Lock()
		b.connections = nil
		b.mu.Unlock()
		for range 100 {
			pass(50 * time.Millisecond)
			if !redirects(b.planned(), theService()) {
				break
			}
		}
		if redirects(b.planned(), theService()) || !b.serves(theService()) {
			t.Fatal("want the Service left by the kernel first, and by Envoy later")
		}
		s := b.state()
		if why := s.short(s.Node.Frontends[0], nil); why == "" || s.countFrontends()["bypass"] != 1 || s.shown(false).Memory.Left["demo/web"] != 1 {
			t.Errorf("the state says %q, %v, %v", why, s.countFrontends(), s.shown(false).Memory)
		}
		// A connection that the kernel sent to Envoy at the last moment.
		b.mu.Lock()
		b.connections = []netip.AddrPort{theService()}
		b.mu.Unlock()
		pass(10 * time.Second)
		if !b.serves(theService()) {
			t.Error("Envoy lost a Service that a connection uses")
		}
		b.mu.Lock()
		b.connections = nil
		b.mu.Unlock()
		pass(5 * time.Second)
		if b.serves(theService()) {
			t.Error("Envoy still has what nobody uses")
		}
		b.mu.Lock()
		b.uses, b.status.Memory = nil, 0
		b.mu.Unlock()
		pass(11 * time.Minute)
		if !redirects(b.planned(), theService()) || !b.serves(theService()) {
			t.Error("the Service did not come back")
		}
		if s := b.state(); s.Phase != PhaseRedirecting || s.Reason != "" {
			t.Errorf("%s: %s", s.Phase, s.Reason)
		}
	})
}

// TestLeavingNeedsToKnow: while connections can't be listed, or the kernel still
// redirects, nothing is taken from Envoy.
func TestLeavingNeedsToKnow(t *testing.T) {
	withShortFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.short()
		b.mu.Lock()
		b.connectionsErr = errors.New("no such module")
		b.mu.Unlock()
		pass(time.Minute)
		if !redirects(b.planned(), theService()) || !b.serves(theService()) {
			t.Error("something was left without knowing what is used")
		}
		if n := b.logs.FilterMessage("can't tell which Services are in use").Len(); n != 1 {
			t.Errorf("that is logged %d times, want once", n)
		}
		b.mu.Lock()
		b.connectionsErr, b.withdrawErr = nil, errors.New("busy")
		b.mu.Unlock()
		pass(time.Minute)
		if !b.serves(theService()) {
			t.Error("Envoy lost a Service that the kernel may still redirect to")
		}
		b.mu.Lock()
		b.withdrawErr = nil
		b.mu.Unlock()
		pass(10 * time.Second)
		if redirects(b.planned(), theService()) || b.serves(theService()) {
			t.Error("the Service was not left once that was possible")
		}
	})
}

// TestDeniedIsLeft: what Envoy was denied leaves the kernel at once: it does not ask
// again.
func TestDeniedIsLeft(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.mu.Lock()
		b.denied, b.status.Denied = []netip.AddrPort{theService()}, 1
		b.mu.Unlock()
		pass(2 * reviewInterval)
		if redirects(b.planned(), theService()) {
			t.Error("the kernel redirects to what Envoy was denied")
		}
		s := b.state()
		if why := s.shown(true).Frontends[0].Bypass; !strings.Contains(why, "when it was first called") {
			t.Errorf("status says %q", why)
		}
	})
}

// TestOldSampleDecidesNothing: what is left is decided by who is connected then, not by
// what was seen when memory was short before.
func TestOldSampleDecidesNothing(t *testing.T) {
	withShortFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.short(theService(), theOther())
		pass(5 * time.Second)
		b.mu.Lock()
		b.connections, b.status.Memory = nil, 0
		b.mu.Unlock()
		pass(10 * time.Second)
		b.short(theService(), theOther())
		pass(10 * time.Second)
		if !redirects(b.planned(), theService()) || !redirects(b.planned(), theOther()) {
			t.Error("a Service in use was left to kube-proxy")
		}
	})
}

// TestCrowdedServiceIsClosed: no further frontend comes into use of a Service that has
// many, at once. To tell that, nobody lists connections.
func TestCrowdedServiceIsClosed(t *testing.T) {
	withShortFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		b.mu.Lock()
		port := model.ServicePort{Namespace: "demo", Service: "web", PortName: "http", Port: 80}
		for i := range xds.MaxFrontends {
			b.uses = append(b.uses, server.Use{Frontend: theService(), Port: port, Number: uint64(i)})
		}
		b.status.Crowded = 1
		b.mu.Unlock()
		b.envoy <- struct{}{}
		pass(reviewInterval / 10)
		if !redirects(b.planned(), theService()) {
			t.Error("a frontend in use was left to kube-proxy")
		}
		if closed := b.state().Ledger.Closed(); !slices.Equal(closed, []string{"demo/web"}) {
			t.Errorf("closed are %v", closed)
		}
		if b.sampled() > 0 {
			t.Error("connections were listed, though nothing depends on them")
		}
	})
}
