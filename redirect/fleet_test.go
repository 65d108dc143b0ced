// SPDX-License-Identifier: Apache-2.0

package redirect

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
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// fleet is a node of fake network namespaces, and a finder of them.
type fleet struct {
	t *testing.T
	// mu guards the namespaces' addresses, and asks.
	mu     sync.Mutex
	spaces map[uint64]*fakeSpace
	// opened counts namespaces that All has opened and nobody closed.
	opened int
	// released are UIDs that were let go.
	released []string
	// asks has the paths asked, unanswered what is wrong with a path's listener.
	asks       []string
	unanswered map[string]error
	cfg        Config
	now        time.Time
}

// fakeSpace is a network namespace with a kernel of its own.
type fakeSpace struct {
	*bench
	fleet *fleet
	inode uint64
	ips   []netip.Addr
	gone  bool
	// open counts kernels opened and not closed.
	open int
}

func newFleet(t *testing.T) *fleet {
	cfg := Default()
	cfg.Mode, cfg.Backend = PodMode, iptables.NFT
	return &fleet{t: t, spaces: map[uint64]*fakeSpace{}, unanswered: map[string]error{}, cfg: cfg, now: time.Unix(1e9, 0)}
}

// add makes a namespace that holds these addresses.
func (f *fleet) add(ips ...string) *fakeSpace {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &fakeSpace{bench: newBench(f.t), fleet: f, inode: uint64(len(f.spaces) + 1)}
	s.sets.Now = func() time.Time { return f.now }
	s.cfg = f.cfg
	for _, ip := range ips {
		s.ips = append(s.ips, netip.MustParseAddr(ip))
	}
	f.spaces[s.inode] = s
	return s
}

// Find is as netns.Finder.Find: by any of a pod's addresses.
func (f *fleet) Find(want []netns.Wanted) (map[string]namespace, map[string]error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found, missing := map[string]namespace{}, map[string]error{}
	for _, w := range want {
		missing[w.UID] = fmt.Errorf("%s: %w", w.Name, netns.ErrNotFound)
		for _, inode := range slices.Sorted(maps.Keys(f.spaces)) {
			s := f.spaces[inode]
			if !s.gone && slices.ContainsFunc(w.IPs, func(ip netip.Addr) bool { return slices.Contains(s.ips, ip) }) {
				found[w.UID] = s
				delete(missing, w.UID)
				break
			}
		}
	}
	return found, missing
}

func (f *fleet) Release(uid string) { f.released = append(f.released, uid) }

func (f *fleet) All() ([]namespace, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []namespace
	for _, inode := range slices.Sorted(maps.Keys(f.spaces)) {
		if s := f.spaces[inode]; !s.gone {
			f.opened++
			all = append(all, s)
		}
	}
	return all, nil
}

func (s *fakeSpace) Path() string  { return fmt.Sprintf("/run/netns/cni-%d", s.inode) }
func (s *fakeSpace) Inode() uint64 { return s.inode }

func (s *fakeSpace) Do(fn func() error) error { return fn() }

func (s *fakeSpace) Addresses() ([]netip.Addr, error) {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	return slices.Clone(s.ips), nil
}

func (s *fakeSpace) Check(ips []netip.Addr) error {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	for _, ip := range ips {
		if s.gone || !slices.Contains(s.ips, ip) {
			return fmt.Errorf("%s: %w", s.Path(), netns.ErrGone)
		}
	}
	return nil
}

func (s *fakeSpace) Close() error {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	s.fleet.opened--
	return nil
}

// change does something to the fleet as others would.
func (f *fleet) change(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

// closing is a kernel whose Close is counted.
type closing struct {
	Sets
	space *fakeSpace
}

func (c closing) Close() error {
	c.space.fleet.mu.Lock()
	defer c.space.fleet.mu.Unlock()
	c.space.open--
	return nil
}

// pods is a fresh Pods, as after a restart.
func (f *fleet) pods() *Pods {
	open := func(ns namespace) (Kernel, error) {
		s := ns.(*fakeSpace)
		f.mu.Lock()
		defer f.mu.Unlock()
		s.open++
		k := s.kernel()
		k.Sets = closing{s.sets, s}
		k.Urgent, k.Network = k.Sets, nil
		return k, nil
	}
	ask := func(_ context.Context, ns namespace, at netip.AddrPort) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.asks = append(f.asks, ns.Path()+" "+at.String())
		return f.unanswered[ns.Path()]
	}
	return newPods(f.cfg, f, open, ask, zap.NewNop())
}

// applied is a Pods that has applied the plan of a node.
func (f *fleet) applied(n *model.Node) *Pods {
	f.t.Helper()
	p := f.pods()
	f.apply(p, n)
	return p
}

// apply is a whole round.
func (f *fleet) apply(p *Pods, n *model.Node) {
	f.t.Helper()
	f.must(f.round(p, n))
}

func (f *fleet) round(p *Pods, n *model.Node) error {
	plan := f.plan(n)
	return errors.Join(p.Prepare(f.t.Context(), plan), p.Withdraw(f.t.Context(), plan), p.Apply(f.t.Context(), plan))
}

func (f *fleet) plan(n *model.Node) *Plan { return Compile(n, f.cfg) }

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}
