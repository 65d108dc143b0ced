// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// Errors of Pods that callers branch on.
var (
	// ErrPartial says that some pods are not redirected, for reasons of their
	// own that Report tells, and that all others are.
	ErrPartial = errors.New("not every pod is redirected")
	// ErrUnanswered says that Envoy doesn't answer in a pod.
	ErrUnanswered = errors.New("no answer by Envoy's listener in the pod")
	// ErrNoListener says that Envoy can't listen in a pod, for reasons of the
	// pod's own: the plan blocks the pod.
	ErrNoListener = errors.New("no listener of Envoy's in the pod")
	// ErrPortTaken says that a pod listens on a port that Envoy would need. It is not
	// asked again: Envoy would take the port once the application restarts.
	ErrPortTaken = errors.New("the pod itself listens on a port of Envoy's")
	// ErrSilent is wrapped by what ask returns when it could connect, but was not
	// answered as Envoy answers.
	ErrSilent = errors.New("connected, but Envoy doesn't answer")
)

// State is what became of a pod.
type State struct {
	// Redirecting says whether new connections go to Envoy.
	Redirecting bool
	// Netns is the path of the pod's network namespace; empty when none is found.
	Netns string
	// Reason says why the pod, or one of its families, is not redirected.
	Reason string
}

// Pods makes the network namespaces of enrolled pods hold plans of PodMode, each
// by an Applier of its own. Its methods are those of Applier. Disengage, Refresh,
// Ask, Engaged, Targets, Report, CountLeaving and Release may be called at any time; the
// other methods wait for each other.
type Pods struct {
	cfg    plan.Config
	finder finder
	open   func(namespace) (apply.Kernel, error)
	ask    func(context.Context, namespace, netip.AddrPort) error
	// count is how many connections in a namespace are redirected to Envoy's ports.
	count func(namespace) (int, error)
	now   func() time.Time
	log   *zap.Logger
	group *apply.Group

	// long is held by one long method at a time.
	long sync.Mutex
	// checks counts calls of Drift, adopted is set once pods were looked for that an
	// earlier agent redirected.
	checks  int
	adopted bool

	// mu guards the following, and what changes of a podNetns. It is held for a
	// single message to the kernel at most.
	mu      sync.Mutex
	located map[string]*podNetns
	missing map[string]*missingPod
	// sweeps is the search for what an earlier agent left.
	sweeps sweeps
	// turns counts how often work on a pod was begun.
	turns int
	// engaged is set when an Apply has come to its end since the last Disengage.
	engaged bool
	// asked counts calls of Ask.
	asked int
	// released is set when a pod was, since the last Release.
	released bool
}

// podNetns is the network namespace of a located pod.
type podNetns struct {
	model.PodTarget
	ns      namespace
	applier *apply.Applier
	// ips are those of the pod's addresses that are on a link, present all
	// addresses that are.
	ips, present []netip.Addr
	// enrolled is unset for a pod that runs but is no longer enrolled; drained is
	// set when nothing of ours is left in it but the drain chain, held when it is gone
	// but may still be redirected.
	enrolled, drained, held bool
	// released is set when Envoy is not to listen in the pod, and cleaned when then
	// nothing of ours is left in one that is not enrolled.
	released, cleaned bool
	// enrolments counts how often it was enrolled.
	enrolments int
	// connections is how many redirected ones a pod that is to be released had when
	// they were last counted, countErr why they can't be.
	connections int
	countErr    error
	// taken is a port of Envoy's on which the pod itself was seen to listen.
	taken netip.AddrPort
	// blocked is why the plan says that it must not be engaged.
	blocked string
	// err is why it is not redirecting, or not all of it; missingIPs says which
	// addresses of the pod are not on a link.
	err, missingIPs error
	// backoff says when a pod with an err is tried again.
	backoff backoff
	// turn is when work on it was last begun.
	turn int
}

// missingPod is an enrolled pod whose network namespace is not found.
type missingPod struct {
	err     error
	backoff backoff
}

// New makes a Pods that finds namespaces by finder, which stays the caller's
// to close. ask tries Envoy's HTTP listener at an address in a pod's namespace,
// and says what is wrong with it. Nothing is looked for yet. The iptables backend
// of cfg may be undecided as long as nothing is applied.
func New(cfg plan.Config, f *netns.Finder, ask func(context.Context, *netns.Namespace, netip.AddrPort) error, log *zap.Logger) (*Pods, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Mode = plan.PodMode
	tables, err := apply.OpenPodTables()
	if err != nil {
		return nil, err
	}
	return &Pods{
		cfg: cfg, finder: netnsFinder{f}, open: kernels(tables), count: redirectedTo(cfg.Ports.All()), log: log, group: &apply.Group{},
		now: time.Now, //nolint:forbidigo // the edge: when a pod that failed is tried again
		ask: func(ctx context.Context, ns namespace, at netip.AddrPort) error {
			return ask(ctx, ns.(*netns.Namespace), at)
		},
		located: map[string]*podNetns{}, missing: map[string]*missingPod{},
	}, nil
}

// Close closes what Pods opened, except the namespaces: they are the finder's.
// What was applied stays.
func (p *Pods) Close() error {
	p.long.Lock()
	defer p.long.Unlock()
	var errs []error
	for _, pod := range p.list() {
		p.remove(pod)
		errs = append(errs, pod.applier.Close())
	}
	return errors.Join(errs...)
}

// remove takes a pod off the list.
func (p *Pods) remove(pod *podNetns) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.located, pod.UID)
}

// list is the located pods, sorted as the plan has them.
func (p *Pods) list() []*podNetns {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Values(p.located), func(x, y *podNetns) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Pod, y.Pod), cmp.Compare(x.UID, y.UID))
	})
}

// Targets are the located pods where Envoy is to listen, sorted by namespace and
// name: the enrolled ones, and those that were enrolled, until Release.
func (p *Pods) Targets() []model.PodTarget {
	all := p.list()
	p.mu.Lock()
	defer p.mu.Unlock()
	targets := make([]model.PodTarget, 0, len(all))
	for _, pod := range all {
		if !pod.released {
			targets = append(targets, pod.PodTarget)
		}
	}
	return targets
}

// Report says what became of each pod, by UID: of those in the last plan, and of
// those that were in one and in which Envoy still listens.
func (p *Pods) Report() map[string]State {
	p.mu.Lock()
	defer p.mu.Unlock()
	report := map[string]State{}
	for uid, m := range p.missing {
		report[uid] = State{Reason: m.err.Error()}
	}
	for uid, pod := range p.located {
		if !pod.enrolled && pod.released {
			continue
		}
		s := State{Netns: pod.Netns, Redirecting: pod.applier.Engaged()}
		switch {
		case !pod.enrolled:
			s.Reason = pod.leaving()
		case pod.err != nil:
			s.Reason = pod.err.Error()
		case !s.Redirecting:
			s.Reason = "not redirected yet"
		case pod.missingIPs != nil:
			s.Reason = pod.missingIPs.Error()
		case p.missing[uid] != nil:
			s.Reason = p.missing[uid].err.Error()
		}
		report[uid] = s
	}
	return report
}

// Forget drops what is known of the kernel, so that the next Apply looks at all
// of it: for when another agent has rightly written there.
func (p *Pods) Forget() {
	p.long.Lock()
	defer p.long.Unlock()
	p.mu.Lock()
	p.sweeps = sweeps{}
	p.mu.Unlock()
	for _, pod := range p.list() {
		pod.applier.Forget()
		p.mu.Lock()
		pod.drained, pod.cleaned = false, false
		p.mu.Unlock()
	}
}

// note records what became of a pod, and when it is to be tried again.
func (p *Pods) note(pod *podNetns, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pod.err = err; err == nil {
		pod.backoff = backoff{}
	} else if !errors.Is(err, errLater) {
		pod.backoff.failed(p.now(), firstPause)
	}
}

// listener is where Envoy answers in a pod, on the listener of this port.
func (pod *podNetns) listener(port uint16) netip.AddrPort {
	if pod.V4 {
		return netip.AddrPortFrom(family.V4.Loopback(), port)
	}
	return netip.AddrPortFrom(family.V6.Loopback(), port)
}
