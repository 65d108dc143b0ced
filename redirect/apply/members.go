// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// ensureSet makes a set, or makes it anew when it is there with other options,
// as after an upgrade.
func (a *Applier) ensureSet(ctx context.Context, tables Tables, want netfilter.SetSpec) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	have, err := a.kernel.Sets.Header(want.Name)
	if errors.Is(err, ipset.ErrNotFound) {
		delete(a.members, want.Name)
		return a.kernel.Sets.Create(want)
	}
	if err != nil {
		return err
	}
	if have.SetSpec == want {
		return nil
	}
	delete(a.members, want.Name)
	err = a.replaceSet(have.SetSpec, want)
	if !errors.Is(err, ipset.ErrMismatch) {
		return err
	}
	// Rules hold on to a set that can't be swapped. Without them nothing is
	// redirected until Apply has finished.
	if err := a.removeHooks(ctx, tables, nil); err != nil {
		return err
	}
	if err := a.destroySet(ctx, want.Name); err != nil {
		return err
	}
	return a.kernel.Sets.Create(want)
}

// replaceSet fills a new set beside the old one and swaps the two, so that
// rules which use it never see it without its members. Members that expire are
// left behind: only engage may make a pod redirected.
func (a *Applier) replaceSet(have, want netfilter.SetSpec) (err error) {
	scratch := want
	scratch.Name = plan.ScratchSet(want.Name)
	if err := a.kernel.Sets.Destroy(scratch.Name); err != nil {
		return err
	}
	if err := a.kernel.Sets.Create(scratch); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.kernel.Sets.Destroy(scratch.Name)) }()
	if have.Type == scratch.Type && have.Family == scratch.Family && scratch.Timeout == 0 {
		members, err := a.kernel.Sets.Members(have.Name)
		if err != nil {
			return err
		}
		if err := a.kernel.Sets.Add(scratch, members); err != nil {
			return err
		}
	}
	return a.kernel.Sets.Swap(have.Name, scratch.Name)
}

// applyFrontends makes the sets hold the plan's members. All that is new goes
// in before anything goes out, so that a frontend which changes its class is
// never in no set.
func (a *Applier) applyFrontends(ctx context.Context, sets []plan.Set) error {
	for _, s := range sets {
		if err := ctx.Err(); err != nil {
			return err
		}
		have, err := a.currentMembers(s.Name)
		if err != nil {
			return err
		}
		add := a.group.compare(have, s.Members).missing
		if err := a.kernel.Sets.Add(s.SetSpec, add); err != nil {
			delete(a.members, s.Name)
			if errors.Is(err, ipset.ErrFull) {
				return fmt.Errorf("%d members, room for %d: %w", len(s.Members), s.MaxElements, err)
			}
			return err
		}
	}
	for _, s := range sets {
		stale := a.group.compare(a.members[s.Name], s.Members).extra
		if err := a.kernel.Sets.Delete(s.SetSpec, stale); err != nil {
			delete(a.members, s.Name)
			return err
		}
		a.members[s.Name] = s.Members
	}
	return nil
}

// withdrawFrontends takes out of a set what the plan has no more. A set that is
// not there, or of another kind, holds nothing that redirects.
func (a *Applier) withdrawFrontends(ctx context.Context, s plan.Set) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, known := a.members[s.Name]; !known {
		h, err := a.kernel.Sets.Header(s.Name)
		if errors.Is(err, ipset.ErrNotFound) {
			return nil
		}
		if err != nil || h.Type != s.Type || h.Family != s.Family {
			return err
		}
	}
	have, err := a.currentMembers(s.Name)
	if err != nil {
		return err
	}
	c := a.group.compare(have, s.Members)
	if err := a.kernel.Sets.Delete(s.SetSpec, c.extra); err != nil {
		delete(a.members, s.Name)
		if errors.Is(err, ipset.ErrNotFound) {
			return nil
		}
		return err
	}
	a.members[s.Name] = c.common
	return nil
}

// currentMembers is what a set holds: as last written, or listed.
func (a *Applier) currentMembers(set string) ([]netfilter.Member, error) {
	if have, known := a.members[set]; known {
		return have, nil
	}
	have, err := a.kernel.Sets.Members(set)
	if err != nil {
		return nil, err
	}
	a.members[set] = have
	return have, nil
}

// diff compares two sorted lists: what only want has, and what only have has.
func diff(have, want []netfilter.Member) (missing, extra []netfilter.Member) {
	for len(have) > 0 && len(want) > 0 {
		switch c := have[0].Compare(want[0]); {
		case c == 0:
			have, want = have[1:], want[1:]
		case c < 0:
			extra, have = append(extra, have[0]), have[1:]
		default:
			missing, want = append(missing, want[0]), want[1:]
		}
	}
	return append(missing, want...), append(extra, have...)
}

// without is a sorted list less those of another.
func without(list, less []netfilter.Member) []netfilter.Member {
	_, rest := diff(list, less)
	return rest
}

// comparison is how two lists differ: what is missing of the second in the first,
// what the first has beyond the second, and what both have.
type comparison struct{ missing, extra, common []netfilter.Member }

// equal says that they don't.
func (c comparison) equal() bool { return len(c.missing)+len(c.extra) == 0 }

// comparisons remembers those of one round. Many pods hold one list and are to
// hold one other, so that the two are compared but once, and what all are left
// with is one list again.
type comparisons struct {
	mu   sync.Mutex
	done map[pair]comparison
}

// pair is two lists by where they are. A list in use is never written to.
type pair struct {
	have, want   *netfilter.Member
	haves, wants int
}

// compare compares two sorted lists.
func (c *comparisons) compare(have, want []netfilter.Member) comparison {
	p := pair{haves: len(have), wants: len(want)}
	if len(have) > 0 {
		p.have = &have[0]
	}
	if len(want) > 0 {
		p.want = &want[0]
	}
	if p.have == p.want && p.haves == p.wants {
		return comparison{common: want}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.done[p]; ok {
		return known
	}
	var found comparison
	found.missing, found.extra = diff(have, want)
	switch {
	case len(found.extra) == 0:
		found.common = have
	case len(found.missing) == 0:
		found.common = want
	default:
		found.common = without(have, found.extra)
	}
	if c.done != nil {
		c.done[p] = found
	}
	return found
}

// Remember keeps comparisons from now on, until the function it returns is called.
func (c *comparisons) Remember() (forget func()) {
	set := func(m map[pair]comparison) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.done = m
	}
	set(map[pair]comparison{})
	return func() { set(nil) }
}
