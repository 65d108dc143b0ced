// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Shares of the limit, in eighths.
const (
	// high is where frontends begin to be left to kube-proxy, and low what is in use
	// after that.
	high, low = 6, 4
	// full is where no frontend comes into use any more.
	full = 7
	// large is the share of a Service, or of a namespace, of which no further
	// frontend comes into use above high.
	large = 2
)

// rest is how long a frontend that was left to kube-proxy stays there, at least: a
// pod that calls all ports of a Service now and then is not to have them loaded, and
// dropped, each time.
const rest = 10 * time.Minute

// Use is a frontend of which Envoy has clusters.
type Use struct {
	Frontend netip.AddrPort
	Port     model.ServicePort
	// Memory is what they take in Envoy, in bytes.
	Memory int64
	// Number is the order in which frontends came into use.
	Number uint64
}

// Sample is which connections there were at one moment.
type Sample struct {
	// Began is when they began to be listed; zero if they were not, or could not be.
	Began time.Time
	// Seen are the frontends that connections through Envoy lead to, or led to a
	// moment ago: of these, Live are those of connections that go on.
	Seen, Live map[netip.AddrPort]bool
}

// Left is a frontend that was in use and is left to kube-proxy.
type Left struct {
	Port model.ServicePort
	// Memory is what it took in Envoy.
	Memory int64
	// At is when it was decided. Out is when the kernel redirected to it no more, zero
	// before; Gone is set once no connection uses it, so that Envoy can do without.
	At, Out time.Time
	Gone    bool
	// Denied is set if it never was in use, as there was no memory for it.
	Denied bool
}

// Ledger is what was decided, and what is known of the use of frontends. It never
// changes: Review returns the next one. The zero Ledger leaves nothing.
type Ledger struct {
	// Left are the frontends that are left to kube-proxy though they were in use.
	Left map[netip.AddrPort]Left
	// services and namespaces are those of which no further frontend is to come into
	// use, until then; all says the same of every one.
	services, namespaces map[string]time.Time
	all                  bool
	// used is when a connection to a frontend in use was last seen.
	used map[netip.AddrPort]time.Time
}

// Input is what a review looks at.
type Input struct {
	Now time.Time
	// Limit is how many bytes of memory frontends in use may take; 0 for no limit.
	Limit int64
	// Most is of how many frontends in use a Service has no further one come into use,
	// while there is a limit.
	Most int
	// Exists says whether there still is a frontend of this address and port.
	Exists func(netip.AddrPort, model.ServicePort) bool
	// Uses are all frontends in use, also those that are left.
	Uses []Use
	// Denied are frontends that Envoy asked for beyond the limit: it has none of them,
	// and does not ask again.
	Denied []Use
	// Sample is the last there was.
	Sample Sample
	// Withdrawn is when the kernel last held nothing that was left by then.
	Withdrawn time.Time
}

// memory is what all frontends in use take, also those that are left.
func (in Input) memory() int64 {
	sum := int64(0)
	for _, u := range in.Uses {
		sum += u.Memory
	}
	return sum
}

// Over says whether so much is in use that frontends have to be left to kube-proxy.
func Over(memory, limit int64) bool { return limit > 0 && memory > limit*high/8 }

// Waits says whether a frontend is left that connections may still use.
func (l *Ledger) Waits() bool {
	for _, left := range l.Left {
		if !left.Gone {
			return true
		}
	}
	return false
}

// Review decides anew. changed says whether what is left, or gone, differs.
func (l *Ledger) Review(in Input) (next *Ledger, changed bool) {
	next = &Ledger{
		Left: maps.Clone(l.Left), services: maps.Clone(l.services), namespaces: maps.Clone(l.namespaces), all: l.all,
		used: l.seen(in),
	}
	if next.Left == nil {
		next.Left, next.services, next.namespaces = map[netip.AddrPort]Left{}, map[string]time.Time{}, map[string]time.Time{}
	}
	for _, d := range in.Denied {
		if _, is := next.Left[d.Frontend]; !is {
			next.Left[d.Frontend] = Left{Port: d.Port, Memory: d.Memory, At: in.Now, Gone: true, Denied: true}
		}
	}
	next.settle(in)
	kept := newShares(in.Uses, next.Left)
	next.all = in.Limit > 0 && (next.all && in.memory() > in.Limit*high/8 || in.memory() > in.Limit*full/8)
	short := Over(kept.memory, in.Limit)
	next.shut(in, kept, short)
	if short {
		next.evict(in, kept)
	} else {
		next.reopen(in, kept)
	}
	return next, !next.same(l)
}

// seen is when each frontend in use was last seen in use.
func (l *Ledger) seen(in Input) map[netip.AddrPort]time.Time {
	used := make(map[netip.AddrPort]time.Time, len(in.Uses))
	for _, u := range in.Uses {
		if at, known := l.used[u.Frontend]; known {
			used[u.Frontend] = at
		}
		if in.Sample.Seen[u.Frontend] {
			used[u.Frontend] = in.Sample.Began
		}
	}
	return used
}

// settle notes which of the frontends that are left the kernel redirects to no more,
// and which of these no connection uses any more. What exists no more is forgotten.
func (l *Ledger) settle(in Input) {
	for at, left := range l.Left {
		if !in.Exists(at, left.Port) {
			delete(l.Left, at)
			continue
		}
		if left.Out.IsZero() && !in.Withdrawn.Before(left.At) {
			left.Out = in.Withdrawn
		}
		// A connection that the kernel redirected before that is in a later sample.
		if !left.Out.IsZero() && in.Sample.Began.After(left.Out) && !in.Sample.Live[at] {
			left.Gone = true
		}
		l.Left[at] = left
	}
}

// shut has no further frontends come into use of a Service that has many, and, when
// memory is short, of those who have much.
func (l *Ledger) shut(in Input, kept shares, short bool) {
	over := func(_ string, until time.Time) bool { return !in.Now.Before(until) || in.Limit == 0 }
	maps.DeleteFunc(l.services, over)
	maps.DeleteFunc(l.namespaces, over)
	if in.Limit == 0 {
		return
	}
	until, much := in.Now.Add(rest), in.Limit*large/8
	for _, ns := range kept.namespaces {
		if short && ns.memory > much {
			l.namespaces[ns.name] = until
		}
		for _, svc := range ns.services {
			if short && svc.memory > much || len(svc.uses) >= in.Most {
				l.services[svc.name] = until
			}
		}
	}
}

// evict leaves frontends in use to kube-proxy until what is kept is low, those who
// have most first. It needs to know which are used by no connection: without
// a sample, nothing is evicted.
func (l *Ledger) evict(in Input, kept shares) {
	if in.Sample.Began.IsZero() {
		return
	}
	kept.rank(func(u Use) bool { return !in.Sample.Live[u.Frontend] }, l.used)
	for kept.memory > in.Limit*low/8 {
		u, ok := kept.take()
		if !ok {
			return
		}
		l.Left[u.Frontend] = Left{Port: u.Port, Memory: u.Memory, At: in.Now}
	}
}

// reopen lets what was left come back when it has rested, as far as there is room:
// Envoy is given it at once, as it does not ask again.
func (l *Ledger) reopen(in Input, kept shares) {
	memory := kept.memory
	for _, at := range l.byRest() {
		left := l.Left[at]
		memory += left.Memory
		if in.Limit > 0 && (in.Now.Sub(left.At) < rest || memory > in.Limit*low/8) {
			return
		}
		delete(l.Left, at)
	}
}

// same says whether two ledgers leave the same.
func (l *Ledger) same(o *Ledger) bool {
	keys := func(a, b map[string]time.Time) bool {
		return maps.EqualFunc(a, b, func(time.Time, time.Time) bool { return true })
	}
	return l.all == o.all && keys(l.services, o.services) && keys(l.namespaces, o.namespaces) &&
		maps.EqualFunc(l.Left, o.Left, func(a, b Left) bool { return a.Gone == b.Gone && a.At.Equal(b.At) })
}

// None says that nothing is left to kube-proxy.
func (l *Ledger) None() bool {
	return len(l.Left)+len(l.services)+len(l.namespaces) == 0 && !l.all
}

// Closed names the Services and namespaces of which no further frontend comes into
// use, sorted; "*" is all of them.
func (l *Ledger) Closed() []string {
	var names []string
	if l.all {
		names = append(names, "*")
	}
	names = slices.AppendSeq(names, maps.Keys(l.services))
	for name := range l.namespaces {
		names = append(names, name+"/*")
	}
	slices.Sort(names)
	return names
}

// Gone says that a frontend is left and that Envoy can do without it.
func (l *Ledger) Gone(at netip.AddrPort) bool { return l.Left[at].Gone }

// Why is the reason why connections to a frontend are left to kube-proxy; empty if
// they are not. used says whether it is in use.
func (l *Ledger) Why(f *model.Frontend, used bool) string {
	const what = "Envoy's memory for Services in use is limited: "
	left, is := l.Left[f.Address]
	service := f.Port.ServiceName()
	switch {
	case left.Denied:
		return what + "there was none for it when it was first called"
	case is:
		return what + "not used for longest, by a Service or namespace that takes much"
	case used:
	case !l.services[service].IsZero():
		return what + fmt.Sprintf("Service %s takes much of it already", service)
	case !l.namespaces[f.Port.Namespace].IsZero():
		return what + fmt.Sprintf("namespace %s takes much of it already", f.Port.Namespace)
	case l.all:
		return what + "no further Service comes into use for now"
	}
	return ""
}
