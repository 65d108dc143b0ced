// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// A pod that isn't found is looked for again after firstWait, then after twice as
// long each time, up to lastWait.
const (
	firstWait = 200 * time.Millisecond
	lastWait  = 5 * time.Second
)

// doubt is how long a pod that has lost its namespace is given no other. Most
// such pods are being deleted, and their address is a new pod's before anybody
// says so; few are given a new namespace.
const doubt = 10 * time.Second

// Wanted is a pod whose network namespace is looked for.
type Wanted struct {
	// UID is the pod's, Name its namespace and name, for messages.
	UID, Name string
	// IPs are all addresses that the pod has.
	IPs []netip.Addr
}

// Finder finds the network namespaces of pods, and holds those it found. It may
// be used by several goroutines at once.
type Finder struct {
	cfg Config
	now func() time.Time
	log *zap.Logger

	mu    sync.Mutex
	pods  map[string]*pod
	cache map[place]reading
}

// pod is what is known of a pod that is wanted, or was found.
type pod struct {
	Wanted
	// space is nil while it isn't found.
	space *Space
	// former is the namespace that was the pod's until lost, if there was one.
	former id
	lost   time.Time
	// err is why it isn't found; it is looked for again at next, and then after wait.
	err  error
	next time.Time
	wait time.Duration
}

// New makes a Finder. now tells the time.
func New(cfg Config, now func() time.Time, log *zap.Logger) *Finder {
	return &Finder{cfg: cfg, now: now, log: log, pods: map[string]*pod{}, cache: map[place]reading{}}
}

// Find gives each wanted pod's namespace by the pod's UID, or the reason why there
// is none. A namespace is the pod's if it has any of the pod's addresses, no other
// namespace has one, and it isn't held for another pod. (Space.Addresses tells
// which addresses are there: a family may come later.) A pod is given the same
// Space until that one is wrong, which closes it, or until Release. A pod that
// isn't found is looked for again by later calls, the less often the longer it is
// missing.
func (f *Finder) Find(want []Wanted) (found map[string]*Space, missing map[string]error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	wanted := map[string]bool{}
	var lost []*pod
	due := false
	for _, w := range want {
		if wanted[w.UID] {
			continue
		}
		wanted[w.UID] = true
		p := f.update(w)
		if f.keeps(p) {
			continue
		}
		lost = append(lost, p)
		due = due || !now.Before(p.next)
	}
	if due {
		f.search(lost, now)
	}
	found, missing = map[string]*Space{}, map[string]error{}
	for uid, p := range f.pods {
		switch {
		case !wanted[uid]:
			if p.space == nil {
				delete(f.pods, uid)
			}
		case p.err != nil:
			missing[uid] = p.err
		default:
			found[uid] = p.space
		}
	}
	return found, missing
}

// update takes what is wanted of a pod.
func (f *Finder) update(w Wanted) *pod {
	p := f.pods[w.UID]
	if p == nil {
		p = &pod{}
		f.pods[w.UID] = p
	}
	if !slices.Equal(p.IPs, w.IPs) {
		p.next, p.wait = time.Time{}, firstWait
	}
	p.Wanted = w
	return p
}

// keeps says whether a pod is held, and its namespace is still its own. One that
// isn't is closed.
func (f *Finder) keeps(p *pod) bool {
	if p.space == nil {
		return false
	}
	p.err = p.space.checkAny(p.IPs)
	if !errors.Is(p.err, ErrGone) {
		return true
	}
	f.log.Info("network namespace lost", zap.String("pod", p.Name), zap.Error(p.err))
	p.former, p.lost = p.space.ns.id, f.now()
	_ = p.space.Close()
	p.space, p.next, p.wait = nil, time.Time{}, firstWait
	return false
}

// Release closes a pod's namespace and forgets the pod.
func (f *Finder) Release(uid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.pods[uid]; p != nil && p.space != nil {
		_ = p.space.Close()
	}
	delete(f.pods, uid)
}

// All opens every network namespace on the node but the host's own, also those
// that are held for pods. The caller closes them, also when there is an error.
func (f *Finder) All() ([]*Space, error) {
	l, err := newLook()
	if err != nil {
		return nil, err
	}
	l.directories(f.cfg.Dirs)
	if f.cfg.Proc != "" {
		l.processes(f.cfg.Proc)
	}
	var spaces []*Space
	for _, p := range l.places {
		s, err := p.open()
		switch {
		case errors.Is(err, ErrGone):
		case err != nil:
			l.errs = append(l.errs, err)
		default:
			spaces = append(spaces, s)
		}
	}
	return spaces, l.trouble()
}

// Close closes every namespace that was found.
func (f *Finder) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.pods {
		if p.space != nil {
			_ = p.space.Close()
		}
	}
	clear(f.pods)
}

// open opens a Space, unless another namespace is there by now.
func (p place) open() (*Space, error) {
	s, err := OpenPath(p.path)
	if err != nil {
		return nil, err
	}
	if s.ns.id != p.id {
		_ = s.Close()
		return nil, fmt.Errorf("%w: %s leads to another", ErrGone, p.path)
	}
	return s, nil
}
