// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// sources are the sets of enrolled pods: the one thing that makes rules match.
// They have a lock and a socket of their own, held only for single messages, so
// that Disengage never waits for anything long.
type sources struct {
	sets  Sets
	group *Group

	mu sync.Mutex
	// engaged has what Refresh renews.
	engaged map[family.Family]engagement
	// closed is set when there is no socket any more.
	closed bool
}

// engagement is a set of pods and the ticket by which it was engaged.
type engagement struct {
	plan.Set
	ticket uint64
}

// Group is common to the appliers of all network namespaces that are disengaged
// together.
type Group struct {
	// disengagements counts them: a ticket from before one engages nothing.
	disengagements atomic.Uint64
	comparisons
}

// Ticket is what Apply needs to engage. Get it before anything is looked at.
func (g *Group) Ticket() uint64 { return g.disengagements.Load() }

// Disengage makes all earlier tickets void, and returns its number.
func (g *Group) Disengage() uint64 { return g.disengagements.Add(1) }

// engage makes the pods' set hold its members, with their timeout begun anew.
func (s *sources) engage(pods plan.Set, ticket uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A Disengage that is counted after this waits for the lock, and then
	// empties the set.
	if ticket != s.group.Ticket() {
		return ErrDisengaged
	}
	have, err := s.sets.Members(pods.Name)
	if err != nil {
		return err
	}
	// Delete first: an address may be another pod's by now.
	if err := s.sets.Delete(pods.SetSpec, without(have, pods.Members)); err != nil {
		return err
	}
	if err := s.sets.Add(pods.SetSpec, pods.Members); err != nil {
		return err
	}
	s.engaged[pods.Family] = engagement{pods, ticket}
	return nil
}

// withdrawPods takes out of the pods' set what the plan has no more.
func (s *sources) withdrawPods(pods plan.Set) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was, ok := s.engaged[pods.Family]; ok {
		was.Members = without(was.Members, without(was.Members, pods.Members))
		s.engaged[pods.Family] = was
	}
	h, err := s.sets.Header(pods.Name)
	if errors.Is(err, ipset.ErrNotFound) {
		return nil
	}
	if err != nil || h.Type != pods.Type || h.Family != pods.Family {
		return err
	}
	have, err := s.sets.Members(pods.Name)
	if err != nil {
		return err
	}
	return s.sets.Delete(pods.SetSpec, without(have, pods.Members))
}

// DisengageBefore empties the sets for the disengagement of this number, as of
// Group.Disengage; what was engaged after it stays.
func (s *sources) DisengageBefore(number uint64) error {
	return s.empty(func(f family.Family) bool {
		e, engaged := s.engaged[f]
		return !engaged || e.ticket < number
	})
}

// DisengagePod is Disengage for this network namespace alone: an Apply of others
// that is under way goes on. It empties the sets whoever filled them.
func (s *sources) DisengagePod() error { return s.empty(func(family.Family) bool { return true }) }

// Disengage stops redirecting new connections at once, by emptying the pods'
// sets; connections that exist go on. An Apply or Refresh under way engages
// nothing any more: only an Apply that begins later does. It is for any
// goroutine, at any time, and takes a few messages to the kernel.
func (s *sources) Disengage() error { return s.DisengageBefore(s.group.Disengage()) }

// disengageFamily is DisengagePod for one family.
func (s *sources) disengageFamily(f family.Family) error {
	return s.empty(func(of family.Family) bool { return of == f })
}

// empty empties the sets of some families and forgets what was engaged; a set that
// is not there is empty.
func (s *sources) empty(which func(family.Family) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range family.All() {
		if !which(f) {
			continue
		}
		delete(s.engaged, f)
		if s.closed {
			continue
		}
		if err := s.sets.Flush(plan.PodsSet(f)); err != nil && !errors.Is(err, ipset.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// close says that there is no socket any more.
func (s *sources) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.engaged)
	s.closed = true
}

// Refresh begins the timeout of all redirected pods anew: call it at least
// every third of the timeout, while Envoy is known to work. ErrDisengaged when
// nothing is engaged.
func (s *sources) Refresh(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.engaged) == 0 || s.closed {
		return ErrDisengaged
	}
	var errs []error
	for _, f := range family.All() {
		if pods, ok := s.engaged[f]; ok {
			errs = append(errs, s.sets.Add(pods.SetSpec, pods.Members))
		}
	}
	return errors.Join(errs...)
}

// EngagedSince says whether any family was engaged with this ticket.
func (s *sources) EngagedSince(ticket uint64) bool {
	return s.engagedBy(family.V4, ticket) || s.engagedBy(family.V6, ticket)
}

// engagedBy says whether a family was engaged by this ticket. A Disengage that
// has begun may not have emptied its set yet.
func (s *sources) engagedBy(f family.Family, ticket uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.engaged[f]
	return ok && e.ticket == ticket
}

// Engaged says whether an Apply has come to its end since the last Disengage, and
// pods are redirected as long as Refresh is called.
func (s *sources) Engaged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.engaged) > 0
}

// driftPods compares the pods' set with what was engaged.
func (s *sources) driftPods(pods plan.Set) (missing, extra []netfilter.Member, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ok := s.engaged[pods.Family]
	if !ok {
		return nil, nil, nil
	}
	have, err := s.sets.Members(pods.Name)
	if err != nil {
		return nil, nil, err
	}
	missing, extra = diff(have, was.Members)
	return missing, extra, nil
}
