// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/redirect/plan"
)

// fakeLocal is what the fixture's kernel takes for its own.
type fakeLocal struct {
	networks []netip.Prefix
	err      error
}

func (b *fixture) setLocal(local *fakeLocal, networks []netip.Prefix, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	local.networks, local.err = networks, err
}

// withLocal is withFixture in host mode, on a node whose networks the test changes.
func withLocal(t *testing.T, f func(t *testing.T, b *fixture, local *fakeLocal)) {
	t.Helper()
	local := &fakeLocal{}
	withPreparedFixture(t, func(b *fixture) {
		b.loop.local.read = func() ([]netip.Prefix, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return local.networks, local.err
		}
	}, func(t *testing.T, b *fixture) { f(t, b, local) })
}

// TestAddressThatTheNodeGets: within a check for drift, a Service whose backend the
// node turns out to be is withdrawn from the kernel before Envoy loses it, and is
// given back when the node no longer is; nobody changed an object.
func TestAddressThatTheNodeGets(t *testing.T) {
	withLocal(t, func(t *testing.T, b *fixture, local *fakeLocal) {
		b.redirecting(t)
		web := netip.MustParseAddrPort("10.96.0.10:80")
		if !b.serves(web) {
			t.Fatal("Envoy does not serve the Service to begin with")
		}
		backend := []netip.Prefix{netip.MustParsePrefix("10.244.2.7/32")}
		b.setLocal(local, backend, nil)
		pass(driftInterval + time.Second/2)
		if diff := cmp.Diff([]string{"prepare", "withdraw", "publish", "apply"}, b.took()); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
		if b.serves(web) {
			t.Error("Envoy serves the Service, as the node")
		}
		b.setLocal(local, nil, nil)
		pass(driftInterval + time.Second/2)
		if !b.serves(web) {
			t.Error("Envoy does not serve the Service again")
		}
		b.took()
		pass(10 * driftInterval)
		if steps := slices.DeleteFunc(b.took(), func(s string) bool { return s == "refresh" }); len(steps) > 0 {
			t.Errorf("with nothing changed: %v", steps)
		}
	})
}

// TestNodeNotRead: what was known of the node stays in force, also through changes
// of objects; the error is logged once, and shown as long as it lasts.
func TestNodeNotRead(t *testing.T) {
	withLocal(t, func(t *testing.T, b *fixture, local *fakeLocal) {
		b.setLocal(local, []netip.Prefix{netip.MustParsePrefix("10.244.2.7/32")}, nil)
		b.redirecting(t)
		b.setLocal(local, nil, errors.New("no buffer space"))
		pass(driftInterval)
		b.change()
		pass(3 * driftInterval)
		if b.serves(netip.MustParseAddrPort("10.96.0.10:80")) {
			t.Error("Envoy serves the Service, as the node")
		}
		if s := b.state(); s.CheckErr != "no buffer space" {
			t.Errorf("status says %q", s.CheckErr)
		}
		if n := b.logs.FilterMessage("host mode goes on with what was known").Len(); n != 1 {
			t.Errorf("logged %d times", n)
		}
		b.setLocal(local, nil, nil)
		pass(2 * driftInterval)
		if s := b.state(); s.CheckErr != "" || !b.serves(netip.MustParseAddrPort("10.96.0.10:80")) {
			t.Errorf("after a read that succeeded: %q", s.CheckErr)
		}
	})
}

// TestModeDecidesWhatTenantsMay: an agent's mode, which is settled before it builds
// anything, is what the model goes by; auto, of which only render speaks, is host's.
func TestModeDecidesWhatTenantsMay(t *testing.T) {
	for mode, want := range map[plan.Mode]bool{plan.HostMode: true, plan.AutoMode: true, plan.PodMode: false} {
		cfg := DefaultConfig()
		cfg.Redirect.Mode = mode
		cfg = cfg.Resolved()
		if cfg.Model.HostMode != want {
			t.Errorf("mode %s: host mode %v", mode, cfg.Model.HostMode)
		}
		if own := []netip.Addr{cfg.Redirect.Address4, cfg.Redirect.Address6}; !slices.Equal(cfg.inSlot(3).Model.ListenerAddresses, own) {
			t.Errorf("mode %s: Envoy's addresses are %v", mode, cfg.Model.ListenerAddresses)
		}
	}
}
