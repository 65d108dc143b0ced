// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nodevoy/nodevoy/agent/envoyadmin"
	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/route"
	"github.com/nodevoy/nodevoy/xds/server"
)

// machine is a node's kernel and the directory its agents share.
type machine struct {
	cfg     plan.Config
	kernel  apply.Kernel
	network *route.Fake
	shared  string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{cfg: plan.DefaultConfig(), network: route.NewFake(), shared: t.TempDir()}
	m.cfg.Mechanism, m.cfg.Backend = plan.DNAT, netfilter.NFT
	sets := ipset.NewFake(time.Now)
	m.kernel = apply.Kernel{Sets: sets, Urgent: sets, Network: m.network}
	var tables []*iptables.Fake
	for _, f := range family.All() {
		fake := iptables.NewFake(netfilter.NFT, f)
		fake.SetExists = sets.Exists
		tables = append(tables, fake)
		m.kernel.Tables = append(m.kernel.Tables, fake)
	}
	sets.References = func(set string) int {
		n := 0
		for _, fake := range tables {
			n += fake.References(set)
		}
		return n
	}
	return m
}

// plan is of a node with one enrolled pod and one Service.
func (m *machine) plan() *plan.Plan {
	return plan.Compile(model.Build(oneService(), model.DefaultOptions()), m.cfg)
}

func nothing(context.Context) error { return nil }

// agent starts a generation, with a plan in place if it is to redirect.
func (m *machine) agent(t *testing.T, redirecting bool) *Agent {
	t.Helper()
	dir := t.TempDir()
	lease, err := handover.Acquire(m.shared, dir, handover.HostMode, func(int) (bool, error) { return true, nil })
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.CleanupOnExit, cfg.DrainTimeout = true, 10*time.Second
	a := &Agent{
		state: &atomic.Pointer[State]{},
		cfg:   cfg, log: zap.NewNop(), envoy: envoyadmin.New(filepath.Join(dir, "admin.sock")),
		kernel: handover.NewFence(apply.NewWith(m.cfg, m.kernel, zap.NewNop()), lease,
			handover.NewSweeper(handover.OtherMode{Stop: nothing, Clean: nothing}, time.Now, zap.NewNop())),
	}
	if redirecting {
		if err := a.kernel.Apply(t.Context(), m.plan()); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// redirected are the pods that the kernel redirects.
func (m *machine) redirected(t *testing.T) []netip.AddrPort {
	t.Helper()
	members, err := m.kernel.Sets.Members("nodevoy-pods4")
	if errors.Is(err, ipset.ErrNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return members
}

// clean says whether nothing of ours is in the kernel.
func (m *machine) clean(t *testing.T) bool {
	t.Helper()
	names, err := m.kernel.Sets.Names()
	if err != nil {
		t.Fatal(err)
	}
	return len(names) == 0
}

// fakeAdmin is Envoy's admin socket; each count of connections is answered by
// the next of these numbers.
type fakeAdmin struct {
	mu     sync.Mutex
	asked  []string
	counts []string
	// seen is called at each count.
	seen func()
}

func (f *fakeAdmin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.Method+" "+r.URL.Path)
	if r.URL.Path != "/stats" {
		return
	}
	f.seen()
	_, _ = w.Write([]byte("listener.admin.downstream_cx_active: 1\nlistener.health.downstream_cx_active: 1\nlistener.http4.downstream_cx_active: " + f.counts[0] +
		"\nlistener.http4.worker_0.downstream_cx_active: " + f.counts[0] + "\n"))
	f.counts = f.counts[1:]
}

func (f *fakeAdmin) serve(t *testing.T, a *Agent) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f, ReadHeaderTimeout: time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	t.Cleanup(func() {
		if err := errors.Join(server.Close(), <-served); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	a.envoy = envoyadmin.New(socket)
}

// TestLeave: told to stop, the agent first gives new connections back, then
// lets Envoy drain, which goes on being configured, and cleans up at last.
func TestLeave(t *testing.T) {
	m := newMachine(t)
	a := m.agent(t, true)
	if len(m.redirected(t)) == 0 {
		t.Fatal("nothing is redirected to begin with")
	}
	var parts atomic.Int32
	started := make(chan struct{})
	a.parts = []runner{func(ctx context.Context) error {
		parts.Add(1)
		close(started)
		<-ctx.Done()
		parts.Add(-1)
		return nil
	}}
	admin := &fakeAdmin{counts: []string{"2", "1", "0"}}
	admin.seen = func() {
		if parts.Load() != 1 {
			t.Error("the agent's parts ended before Envoy was drained")
		}
		if len(m.redirected(t)) > 0 || m.clean(t) {
			t.Error("while Envoy drains, pods are redirected or rules removed")
		}
		if err := a.kernel.Apply(t.Context(), m.plan()); !errors.Is(err, apply.ErrDisengaged) || a.kernel.Engaged() {
			t.Errorf("an agent that leaves redirected again: %v", err)
		}
	}
	admin.serve(t, a)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	<-started
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := []string{"POST /healthcheck/fail", "GET /stats", "GET /stats", "GET /stats"}
	if diff := cmp.Diff(want, admin.asked); diff != "" {
		t.Errorf("Envoy was asked (-want +got):\n%s", diff)
	}
	if !m.clean(t) {
		t.Error("something is left in the kernel")
	}
}

// TestLeaveWithoutEnvoy: there is nothing to wait for, and no fault.
func TestLeaveWithoutEnvoy(t *testing.T) {
	m := newMachine(t)
	a := m.agent(t, true)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	start := time.Now()
	if err := a.Run(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if !m.clean(t) {
		t.Error("something is left in the kernel")
	}
}

// TestFailureLeavesRules: an agent that fails is started again, beside an Envoy
// that works: it must neither drain that nor stop redirecting.
func TestFailureLeavesRules(t *testing.T) {
	m := newMachine(t)
	a := m.agent(t, true)
	admin := &fakeAdmin{}
	admin.serve(t, a)
	fault := errors.New("no socket")
	a.parts = []runner{
		func(ctx context.Context) error { <-ctx.Done(); return nil },
		func(context.Context) error { return fault },
	}
	if err := a.Run(t.Context()); !errors.Is(err, fault) {
		t.Errorf("ended with %v", err)
	}
	if len(m.redirected(t)) == 0 || len(admin.asked) > 0 {
		t.Errorf("redirected are %v, Envoy was asked %q", m.redirected(t), admin.asked)
	}
}

// TestNewcomerIsNotSuperseded: as long as the older agent owns the rules the
// newcomer is not ready; afterwards the older one stands by, and takes back
// when the newer one ends.
func TestNewcomerIsNotSuperseded(t *testing.T) {
	m := newMachine(t)
	older, newer := m.agent(t, true), m.agent(t, false)
	if err := newer.kernel.Withdraw(t.Context(), m.plan()); !errors.Is(err, handover.ErrSuperseded) {
		t.Errorf("the newcomer withdrew what the older one uses: %v", err)
	}
	if newer.kernel.Superseded() || older.kernel.Superseded() {
		t.Error("somebody is superseded before anything was taken over")
	}
	if err := newer.kernel.Apply(t.Context(), m.plan()); err != nil {
		t.Fatal(err)
	}
	if newer.kernel.Superseded() || !older.kernel.Superseded() {
		t.Error("the older one is not superseded")
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := newer.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if older.kernel.Superseded() {
		t.Error("superseded by an agent that ended")
	}
	if err := older.kernel.Apply(t.Context(), m.plan()); err != nil || len(m.redirected(t)) == 0 {
		t.Errorf("the older one did not take back: %v", err)
	}
	if err := older.kernel.Close(); err != nil {
		t.Error(err)
	}
}

// TestOlderTakesAddressAlong: an older agent that cleans up before the newer one
// has taken over removes the address that the newer one's Envoy is tried at.
func TestOlderTakesAddressAlong(t *testing.T) {
	m := newMachine(t)
	older, newer := m.agent(t, true), m.agent(t, false)
	has := func() bool {
		have, err := m.network.Addresses(family.V4)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(have, m.cfg.Address4)
	}
	if err := newer.kernel.Prepare(t.Context(), m.plan()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := older.Run(ctx); err != nil || has() {
		t.Fatalf("the address is there: %v, error %v; else this test shows nothing", has(), err)
	}
	// This is what the loop does when the listener does not answer.
	if err := newer.kernel.Prepare(t.Context(), m.plan()); err != nil || !has() {
		t.Errorf("the address is not back: %v", err)
	}
	if err := newer.kernel.Close(); err != nil {
		t.Error(err)
	}
}

// TestProberAddress: what Envoy refused is not asked for proof that it serves the
// rest.
func TestProberAddress(t *testing.T) {
	key := func(class model.Class, v6 bool) server.ListenerKey { return server.ListenerKey{Class: class, V6: v6} }
	http4, http6 := key(model.ClassHTTP, false), key(model.ClassHTTP, true)
	all := []server.ListenerKey{http4, http6, key(model.ClassTCP, false), key(model.ClassTCP, true), key(model.ClassDetect, false), key(model.ClassDetect, true)}
	both, v6 := []family.Family{family.V4, family.V6}, []family.Family{family.V6}
	for _, tt := range []struct {
		families []family.Family
		refused  []server.ListenerKey
		want     string
	}{
		{both, nil, "169.254.64.15:23722"},
		{v6, nil, "[fd6e:6f64:6576:6f79::15]:23722"},
		{both, all[:1], "[fd6e:6f64:6576:6f79::15]:23722"},
		{both, all[:2], "169.254.64.15:23721"},
		{both, all[:5], "[fd6e:6f64:6576:6f79::15]:23723"},
		{both, all, "invalid AddrPort"},
	} {
		cfg := plan.DefaultConfig()
		cfg.Families = tt.families
		refused := map[server.ListenerKey]string{}
		for _, k := range tt.refused {
			refused[k] = "spoilt"
		}
		got, err := hostListener(cfg, refused)
		if got.String() != tt.want || (err != nil) == got.IsValid() {
			t.Errorf("%v without %v: %s, %v; want %s", tt.families, tt.refused, got, err, tt.want)
		}
	}
}

// TestAddressInUse: metrics and health wait for their address for longer than
// any older agent should have it, without failing, and appear once it is free.
func TestAddressInUse(t *testing.T) {
	older, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	b := binder{address: older.Addr().String(), what: "metrics and health", log: zap.New(core)}
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 3*bindPatience+bindInterval/2)
		defer stop()
		if ln, err := b.listen(ctx); ln != nil || err != nil {
			t.Errorf("listens at %v, error %v", ln, err)
		}
	})
	if n := logs.Len(); n != 3 {
		t.Errorf("%d lines of log in three times the patience, want 3", n)
	}
	if err := older.Close(); err != nil {
		t.Fatal(err)
	}
	ln, err := b.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
}
