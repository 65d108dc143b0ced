// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// fixture is a node of fake network namespaces, and a finder of them.
type fixture struct {
	t *testing.T
	// mu guards the namespaces' addresses, and asks.
	mu         sync.Mutex
	namespaces map[uint64]*fakeNamespace
	// opened counts namespaces that All has opened and nobody closed.
	opened int
	// asked are the pods that the finder was told of by the last Find.
	asked []netns.Wanted
	// released are UIDs that the finder was told to forget.
	released []string
	// asks has the paths asked, unanswered what is wrong with a path's listeners, or
	// with the one at an address.
	asks       []string
	unanswered map[string]error
	cfg        plan.Config
	now        time.Time
}

// fakeNamespace is a network namespace with a kernel of its own.
type fakeNamespace struct {
	*redirecttest.Fixture
	fixture *fixture
	inode   uint64
	ips     []netip.Addr
	gone    bool
	// unknown is why it can't be looked at.
	unknown error
	// open counts kernels opened and not closed.
	open int
	// redirected is how many of its connections are, uncounted why that can't be told.
	redirected int
	uncounted  error
	// before is asked before each call of its kernel; an error fails that.
	before func(ctx context.Context, call string) error
}

func newFixture(t *testing.T) *fixture {
	cfg := plan.DefaultConfig()
	cfg.Mode, cfg.Backend = plan.PodMode, netfilter.NFT
	return &fixture{t: t, namespaces: map[uint64]*fakeNamespace{}, unanswered: map[string]error{}, cfg: cfg, now: time.Unix(1e9, 0)}
}

// add makes a namespace that holds these addresses.
func (f *fixture) add(ips ...string) *fakeNamespace {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &fakeNamespace{Fixture: redirecttest.New(f.t), fixture: f, inode: uint64(len(f.namespaces) + 1)}
	s.Sets.Now = func() time.Time { return f.now }
	s.Cfg = f.cfg
	for _, ip := range ips {
		s.ips = append(s.ips, netip.MustParseAddr(ip))
	}
	f.namespaces[s.inode] = s
	return s
}

// Find is as netns.Finder.Find: by any of a pod's addresses. What can't be looked at
// is found all the same.
func (f *fixture) Find(want []netns.Wanted) (map[string]namespace, map[string]error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found, missing := map[string]namespace{}, map[string]error{}
	f.asked = nil
	for _, w := range want {
		if f.asked = append(f.asked, w); w.ExcludeOnly {
			continue
		}
		missing[w.UID] = fmt.Errorf("%s: %w", w.Name, netns.ErrNotFound)
		for _, inode := range slices.Sorted(maps.Keys(f.namespaces)) {
			s := f.namespaces[inode]
			if !s.gone && slices.ContainsFunc(w.IPs, func(ip netip.Addr) bool { return slices.Contains(s.ips, ip) }) {
				found[w.UID] = s
				delete(missing, w.UID)
				if s.unknown != nil {
					missing[w.UID] = s.unknown
				}
				break
			}
		}
	}
	return found, missing
}

func (f *fixture) Release(uid string) { f.released = append(f.released, uid) }

func (f *fixture) All() ([]namespace, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []namespace
	for _, inode := range slices.Sorted(maps.Keys(f.namespaces)) {
		if s := f.namespaces[inode]; !s.gone {
			f.opened++
			all = append(all, s)
		}
	}
	return all, nil
}

func (s *fakeNamespace) Path() string  { return fmt.Sprintf("/run/netns/cni-%d", s.inode) }
func (s *fakeNamespace) Inode() uint64 { return s.inode }

func (s *fakeNamespace) Do(fn func() error) error { return fn() }

func (s *fakeNamespace) Addresses() ([]netip.Addr, error) {
	s.fixture.mu.Lock()
	defer s.fixture.mu.Unlock()
	return slices.Clone(s.ips), nil
}

func (s *fakeNamespace) Check(ips []netip.Addr) error {
	s.fixture.mu.Lock()
	defer s.fixture.mu.Unlock()
	if s.gone {
		return fmt.Errorf("%s: %w", s.Path(), netns.ErrGone)
	}
	for _, ip := range ips {
		if !slices.Contains(s.ips, ip) {
			return fmt.Errorf("%s: %w", s.Path(), netns.ErrGone)
		}
	}
	return nil
}

func (s *fakeNamespace) Close() error {
	s.fixture.mu.Lock()
	defer s.fixture.mu.Unlock()
	s.fixture.opened--
	return nil
}

// pass lets the pause after a first failure pass.
func (f *fixture) pass() { f.change(func() { f.now = f.now.Add(firstPause) }) }

// change does something to the node as others would.
func (f *fixture) change(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

// call asks before, if there is one.
func (s *fakeNamespace) call(ctx context.Context, call string) error {
	s.fixture.mu.Lock()
	before := s.before
	s.fixture.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(ctx, call)
}

// tables are a namespace's tables of which each call is asked for first.
type tables struct {
	apply.Tables
	ns *fakeNamespace
}

func (t tables) List(ctx context.Context, table, chain string) ([]string, error) {
	if err := t.ns.call(ctx, "list "+t.Backend().String()+" "+chain); err != nil {
		return nil, err
	}
	return t.Tables.List(ctx, table, chain)
}

func (t tables) Restore(ctx context.Context, text string) error {
	if err := t.ns.call(ctx, "restore"); err != nil {
		return err
	}
	return t.Tables.Restore(ctx, text)
}

// closing is sets whose Close is counted, and of which some calls are asked for first.
type closing struct {
	apply.Sets
	ns *fakeNamespace
}

func (c closing) Add(set netfilter.SetSpec, members []netfilter.Member) error {
	if err := c.ns.call(context.Background(), "add "+set.Name); err != nil {
		return err
	}
	return c.Sets.Add(set, members)
}

func (c closing) Members(set string) ([]netfilter.Member, error) {
	if err := c.ns.call(context.Background(), "members "+set); err != nil {
		return nil, err
	}
	return c.Sets.Members(set)
}

func (c closing) Flush(set string) error {
	if err := c.ns.call(context.Background(), "flush "+set); err != nil {
		return err
	}
	return c.Sets.Flush(set)
}

func (c closing) Close() error {
	c.ns.fixture.mu.Lock()
	defer c.ns.fixture.mu.Unlock()
	c.ns.open--
	return nil
}

// pods is a fresh Pods, as after a restart.
func (f *fixture) pods() *Pods {
	open := func(ns namespace) (apply.Kernel, error) {
		s := ns.(*fakeNamespace)
		f.mu.Lock()
		defer f.mu.Unlock()
		s.open++
		k := s.Kernel()
		k.Sets = closing{s.Sets, s}
		k.Urgent, k.Network = k.Sets, nil
		for i, t := range k.Tables {
			k.Tables[i] = tables{t, s}
		}
		return k, nil
	}
	ask := func(_ context.Context, ns namespace, at netip.AddrPort) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.asks = append(f.asks, ns.Path()+" "+at.String())
		if err := f.unanswered[ns.Path()+" "+at.String()]; err != nil {
			return err
		}
		return f.unanswered[ns.Path()]
	}
	count := func(ns namespace) (int, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		s := ns.(*fakeNamespace)
		return s.redirected, s.uncounted
	}
	return &Pods{
		cfg: f.cfg, finder: f, open: open, ask: ask, count: count, now: func() time.Time { return f.now }, log: zap.NewNop(), group: &apply.Group{},
		located: map[string]*podNetns{}, missing: map[string]*missingPod{},
	}
}

// applied is a Pods that has applied the plan of a node.
func (f *fixture) applied(n *model.Node) *Pods {
	f.t.Helper()
	p := f.pods()
	f.apply(p, n)
	return p
}

// apply is a whole round.
func (f *fixture) apply(p *Pods, n *model.Node) {
	f.t.Helper()
	f.must(f.round(p, n))
}

func (f *fixture) round(p *Pods, n *model.Node) error {
	desired := f.plan(n)
	return errors.Join(p.Prepare(f.t.Context(), desired), p.Withdraw(f.t.Context(), desired), p.Apply(f.t.Context(), desired))
}

func (f *fixture) plan(n *model.Node) *plan.Plan { return plan.Compile(n, f.cfg) }

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}
