// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"maps"
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

// reassignDelay is how long a pod that has lost its namespace is given no other.
// Most such pods are being deleted, and their address is a new pod's before anybody
// says so; few are given a new namespace.
const reassignDelay = 10 * time.Second

// Wanted is a pod of the node.
type Wanted struct {
	// UID is the pod's, Name its namespace and name, for messages.
	UID, Name string
	// IPs are all addresses that the pod has, and nobody else: none of a pod that
	// has ended, or that uses the node's network.
	IPs []netip.Addr
	// ExcludeOnly: the pod's namespace isn't asked for. The pod counts all the same,
	// so that its namespace is given to no other.
	ExcludeOnly bool
}

// Finder finds the network namespaces of pods, and holds those it found. It may
// be used by several goroutines at once.
type Finder struct {
	cfg Config
	now func() time.Time
	log *zap.Logger

	mu    sync.Mutex
	pods  map[string]*pod
	cache map[location]reading
}

// pod is what is known of a pod that is wanted, or was found.
type pod struct {
	Wanted
	// ns is nil while it isn't found.
	ns *Namespace
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
	return &Finder{cfg: cfg, now: now, log: log, pods: map[string]*pod{}, cache: map[location]reading{}}
}

// Find takes all pods of the node, and gives the namespaces of those that are asked
// for, by UID, and what is wrong with some.
//
// A namespace may be the pod's if it has any of the pod's addresses and isn't held
// for another pod. (Namespace.Addresses tells which addresses are there: a family may
// come later.) Where more than one namespace has the address, or more than one pod
// claims a namespace, the first of these decides that says anything: the cgroup of
// processes inside, if Config.Proc is set; the node's own route to the address; and
// that there is one namespace which no other pod claims. If nothing does, it is
// ErrAmbiguous.
//
// A pod is given the same Namespace until that one is known to be wrong, which closes
// it, or until Release. What can't be found out now changes nothing: a pod that was
// found is found, and its error wraps ErrUnknown. A pod that isn't found is looked
// for again by later calls, the less often the longer it is missing.
func (f *Finder) Find(pods []Wanted) (found map[string]*Namespace, problems map[string]error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	known := map[string]bool{}
	var wanted, lost, others []*pod
	due := false
	for _, w := range pods {
		if known[w.UID] {
			continue
		}
		known[w.UID] = true
		if w.ExcludeOnly {
			if p := f.pods[w.UID]; p == nil || p.ns == nil {
				others = append(others, &pod{Wanted: w})
			}
			continue
		}
		p := f.update(w)
		wanted = append(wanted, p)
		if !f.keeps(p) {
			lost = append(lost, p)
			due = due || !now.Before(p.next)
		}
	}
	if due {
		f.search(lost, others, now)
	}
	found, problems = map[string]*Namespace{}, map[string]error{}
	for _, p := range wanted {
		if p.ns != nil {
			found[p.UID] = p.ns
		}
		if p.err != nil {
			problems[p.UID] = p.err
		}
	}
	maps.DeleteFunc(f.pods, func(uid string, p *pod) bool { return p.ns == nil && problems[uid] == nil })
	return found, problems
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

// keeps says whether a pod is held, and its namespace is not known to be another's
// now. One that is so is closed.
func (f *Finder) keeps(p *pod) bool {
	if p.ns == nil {
		return false
	}
	p.err = unknown(p.ns.checkAny(p.IPs))
	if !errors.Is(p.err, ErrGone) {
		return true
	}
	f.log.Info("network namespace lost", zap.String("pod", p.Name), zap.Error(p.err))
	p.former, p.lost = p.ns.file.id, f.now()
	_ = p.ns.Close()
	p.ns, p.next, p.wait = nil, time.Time{}, firstWait
	return false
}

// Release closes a pod's namespace and forgets the pod.
func (f *Finder) Release(uid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.pods[uid]; p != nil && p.ns != nil {
		_ = p.ns.Close()
	}
	delete(f.pods, uid)
}

// All opens every network namespace on the node but the host's own, also those
// that are held for pods. The caller closes them, also when there is an error.
func (f *Finder) All() ([]*Namespace, error) {
	s, err := newScan(f.cfg.Proc)
	if err != nil {
		return nil, err
	}
	s.directories(f.cfg.Dirs)
	if f.cfg.Proc != "" {
		s.hostMounts(f.cfg)
		s.processes(f.cfg.Proc)
	}
	var namespaces []*Namespace
	for _, l := range s.locations {
		n, err := l.open()
		switch {
		case errors.Is(err, ErrGone):
		case err != nil:
			s.errs = append(s.errs, err)
		default:
			namespaces = append(namespaces, n)
		}
	}
	return namespaces, s.incomplete()
}

// Close closes every namespace that was found.
func (f *Finder) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.pods {
		if p.ns != nil {
			_ = p.ns.Close()
		}
	}
	clear(f.pods)
}
