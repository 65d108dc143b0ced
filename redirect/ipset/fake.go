// SPDX-License-Identifier: Apache-2.0

package ipset

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Fake has sets in memory. It refuses what the kernel refuses; the contract
// test runs on both.
type Fake struct {
	// Now is the clock that members expire by.
	Now func() time.Time
	// References counts the rules that refer to a set; nil for none.
	References func(set string) int

	mu   sync.Mutex
	sets map[string]*fakeSet
}

type fakeSet struct {
	spec netfilter.SetSpec
	// members have the moment they expire, zero for never.
	members map[netfilter.Member]time.Time
}

// NewFake makes a kernel without sets.
func NewFake(now func() time.Time) *Fake {
	return &Fake{Now: now, sets: map[string]*fakeSet{}}
}

// Exists says whether there is a set of that name.
func (f *Fake) Exists(set string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sets[set] != nil
}

// Protocol is that of the kernels supported.
func (f *Fake) Protocol() (int, error) { return 7, nil }

// Close does nothing: a Fake has no socket.
func (f *Fake) Close() error { return nil }

// Create is as Sets.Create.
func (f *Fake) Create(spec netfilter.SetSpec) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sets[spec.Name] != nil {
		return wrap("create", spec.Name, ErrExists)
	}
	f.sets[spec.Name] = &fakeSet{spec: spec, members: map[netfilter.Member]time.Time{}}
	return nil
}

// Destroy is as Sets.Destroy.
func (f *Fake) Destroy(set string) error {
	if f.references(set) > 0 {
		return wrap("destroy", set, ErrInUse)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sets, set)
	return nil
}

// Flush is as Sets.Flush.
func (f *Fake) Flush(set string) error {
	return f.with("flush", set, func(s *fakeSet) error {
		clear(s.members)
		return nil
	})
}

// Swap is as Sets.Swap.
func (f *Fake) Swap(a, b string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, y := f.sets[a], f.sets[b]
	if x == nil || y == nil {
		return wrap("swap "+b+" with", a, ErrNotFound)
	}
	if x.spec.Type != y.spec.Type || x.spec.Family != y.spec.Family {
		return wrap("swap "+b+" with", a, ErrMismatch)
	}
	x.spec.Name, y.spec.Name = b, a
	f.sets[a], f.sets[b] = y, x
	return nil
}

// Add is as Sets.Add.
func (f *Fake) Add(set netfilter.SetSpec, members []netfilter.Member) error {
	return f.with("add to", set.Name, func(s *fakeSet) error {
		for _, m := range members {
			if _, there := s.members[m]; !there && len(s.members) >= int(s.spec.MaxElements) {
				return ErrFull
			}
			s.members[m] = time.Time{}
			if s.spec.Timeout > 0 {
				s.members[m] = f.Now().Add(s.spec.Timeout)
			}
		}
		return nil
	})
}

// Delete is as Sets.Delete.
func (f *Fake) Delete(set netfilter.SetSpec, members []netfilter.Member) error {
	return f.with("delete from", set.Name, func(s *fakeSet) error {
		for _, m := range members {
			delete(s.members, m)
		}
		return nil
	})
}

// Header is as Sets.Header.
func (f *Fake) Header(set string) (h Header, err error) {
	references := f.references(set)
	err = f.with("list", set, func(s *fakeSet) error {
		h = Header{SetSpec: s.spec, Count: len(s.members), References: references}
		return nil
	})
	return h, err
}

// Members is as Sets.Members.
func (f *Fake) Members(set string) (members []netfilter.Member, err error) {
	err = f.with("list", set, func(s *fakeSet) error {
		members = slices.SortedFunc(maps.Keys(s.members), netfilter.Member.Compare)
		return nil
	})
	return members, err
}

// Names is as Sets.Names.
func (f *Fake) Names() ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.sets)), nil
}

// with does something with a set whose members that are due have expired.
func (f *Fake) with(verb, set string, do func(*fakeSet) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sets[set]
	if s == nil {
		return wrap(verb, set, ErrNotFound)
	}
	now := f.Now()
	maps.DeleteFunc(s.members, func(_ netfilter.Member, at time.Time) bool { return !at.IsZero() && !now.Before(at) })
	return wrap(verb, set, do(s))
}

func (f *Fake) references(set string) int {
	if f.References == nil {
		return 0
	}
	return f.References(set)
}
