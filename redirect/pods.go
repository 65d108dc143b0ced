// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// Errors of Pods that callers branch on.
var (
	// ErrPartial says that some pods are not redirected, for reasons of their
	// own that Report tells, and that all others are.
	ErrPartial = errors.New("not every pod is redirected")
	// ErrUnanswered says that Envoy doesn't answer in a pod.
	ErrUnanswered = errors.New("no answer by Envoy's listener in the pod")
	// ErrNoListener says that Envoy can't listen in a pod, for reasons of the
	// pod's own. It is for those who ask.
	ErrNoListener = errors.New("no listener of Envoy's in the pod")
)

// PodState is what became of a pod.
type PodState struct {
	// Redirecting says whether new connections go to Envoy.
	Redirecting bool
	// Netns is the path of the pod's network namespace; empty when none is found.
	Netns string
	// Reason says why the pod, or one of its families, is not redirected.
	Reason string
}

// Pods makes the network namespaces of enrolled pods hold plans of PodMode, each
// by an Applier of its own. Its methods are those of Applier. Release, Refresh,
// Ask, Engaged, Places and Report may be called at any time; the other methods
// wait for each other. What goes wrong in one pod never holds up another.
type Pods struct {
	cfg    Config
	finder finder
	open   func(namespace) (Kernel, error)
	ask    func(context.Context, namespace, netip.AddrPort) error
	log    *zap.Logger
	shared *shared

	// long is held by one long method at a time.
	long sync.Mutex
	// swept is set once no pod has anything of ours that is not in the plan.
	swept bool
	// checks counts calls of Drift.
	checks int

	// mu guards the following, and what changes of a place. Who holds it waits
	// for a single message to the kernel at most.
	mu      sync.Mutex
	places  map[string]*place
	missing map[string]error
	// engaged is set when an Apply has come to its end since the last Release.
	engaged bool
	// asked counts calls of Ask.
	asked int
}

// place is a located pod.
type place struct {
	model.PodTarget
	ns      namespace
	applier *Applier
	// ips are those of the pod's addresses that are on a link, held all that are.
	ips, held []netip.Addr
	// enrolled is unset for a pod that is only living; retired is set when
	// nothing of ours is left in it.
	enrolled, retired bool
	// err is why it is not redirecting, or not all of it; lacking says which
	// addresses of the pod are not on a link.
	err, lacking error
}

// NewPods makes a Pods that finds namespaces by finder, which stays the caller's
// to close. ask tries Envoy's HTTP listener at an address in a pod's namespace,
// and says what is wrong with it. Nothing is looked for yet. The iptables backend
// of cfg may be undecided as long as nothing is applied.
func NewPods(cfg Config, f *netns.Finder, ask func(context.Context, *netns.Space, netip.AddrPort) error, log *zap.Logger) (*Pods, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Mode = PodMode
	tables, err := openTables()
	if err != nil {
		return nil, err
	}
	return newPods(cfg, spaces{f}, insider{tables}.open, func(ctx context.Context, ns namespace, at netip.AddrPort) error {
		return ask(ctx, ns.(*netns.Space), at)
	}, log), nil
}

func newPods(cfg Config, f finder, open func(namespace) (Kernel, error), ask func(context.Context, namespace, netip.AddrPort) error, log *zap.Logger) *Pods {
	return &Pods{cfg: cfg, finder: f, open: open, ask: ask, log: log, shared: &shared{}, places: map[string]*place{}, missing: map[string]error{}}
}

// Close closes what Pods opened, except the namespaces: they are the finder's.
// What was applied stays.
func (p *Pods) Close() error {
	p.long.Lock()
	defer p.long.Unlock()
	var errs []error
	for _, pl := range p.take(func(*place) bool { return true }) {
		errs = append(errs, pl.applier.Close())
	}
	return errors.Join(errs...)
}

// take removes places from the list, and returns them.
func (p *Pods) take(which func(*place) bool) []*place {
	p.mu.Lock()
	defer p.mu.Unlock()
	var taken []*place
	for uid, pl := range p.places {
		if which(pl) {
			taken = append(taken, pl)
			delete(p.places, uid)
		}
	}
	return taken
}

// all are the places, sorted as the plan has them.
func (p *Pods) all() []*place {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Values(p.places), func(x, y *place) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Pod, y.Pod), cmp.Compare(x.UID, y.UID))
	})
}

// Places are the located pods where Envoy is to listen, sorted by namespace and
// name: the enrolled ones, and those that were enrolled and live on.
func (p *Pods) Places() []model.PodTarget {
	all := p.all()
	p.mu.Lock()
	defer p.mu.Unlock()
	places := make([]model.PodTarget, 0, len(all))
	for _, pl := range all {
		places = append(places, pl.PodTarget)
	}
	return places
}

// Report says what became of each pod, by UID: of those in the last plan, and of
// those that were in one and live on.
func (p *Pods) Report() map[string]PodState {
	p.mu.Lock()
	defer p.mu.Unlock()
	report := map[string]PodState{}
	for uid, err := range p.missing {
		report[uid] = PodState{Reason: err.Error()}
	}
	for uid, pl := range p.places {
		s := PodState{Netns: pl.Netns, Redirecting: pl.applier.Engaged()}
		switch {
		case !pl.enrolled:
			s.Reason = "not enrolled any more: connections it has go on"
		case pl.err != nil:
			s.Reason = pl.err.Error()
		case !s.Redirecting:
			s.Reason = "not redirected yet"
		case pl.lacking != nil:
			s.Reason = pl.lacking.Error()
		}
		report[uid] = s
	}
	return report
}

// Forget drops what is known of the kernel, so that the next Apply looks at all
// of it: for when somebody else has written there with right.
func (p *Pods) Forget() {
	p.long.Lock()
	defer p.long.Unlock()
	p.swept = false
	for _, pl := range p.all() {
		pl.applier.Forget()
		pl.retired = false
	}
}

// parallel is how many pods are worked on at a time.
const parallel = 4

// each works on several places at a time, those that had no trouble first, and
// joins what went wrong.
func (p *Pods) each(ctx context.Context, places []*place, work func(context.Context, *place) error) error {
	p.mu.Lock()
	places = slices.Clone(places)
	slices.SortStableFunc(places, func(x, y *place) int { return cmp.Compare(trouble(x), trouble(y)) })
	p.mu.Unlock()
	errs := make([]error, len(places))
	var g errgroup.Group
	g.SetLimit(parallel)
	for i, pl := range places {
		g.Go(func() error {
			errs[i] = work(ctx, pl)
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

func trouble(pl *place) int {
	if pl.err != nil {
		return 1
	}
	return 0
}

// note records what became of a place.
func (p *Pods) note(pl *place, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pl.err = err
}

// listener is where Envoy answers in a place, on the listener of this port.
func (pl *place) listener(port uint16) netip.AddrPort {
	f := family.V4
	if !pl.V4 {
		f = family.V6
	}
	return netip.AddrPortFrom(f.Loopback(), port)
}
