// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"fmt"

	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// ensureSet makes a set, or makes it anew when it is there with other options,
// as after an upgrade.
func (a *Applier) ensureSet(ctx context.Context, tables Tables, want netfilter.SetSpec) error {
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
func (a *Applier) replaceSet(have, want netfilter.SetSpec) error {
	scratch := want
	scratch.Name = plan.ScratchSet(want.Name)
	if err := a.kernel.Sets.Destroy(scratch.Name); err != nil {
		return err
	}
	if err := a.kernel.Sets.Create(scratch); err != nil {
		return err
	}
	err := a.fillAndSwap(have, scratch)
	return errors.Join(err, a.kernel.Sets.Destroy(scratch.Name))
}

func (a *Applier) fillAndSwap(have, scratch netfilter.SetSpec) error {
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
func (a *Applier) applyFrontends(sets []plan.Set) error {
	for _, s := range sets {
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
func (a *Applier) withdrawFrontends(s plan.Set) error {
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
	err = a.kernel.Sets.Delete(s.SetSpec, c.extra)
	if errors.Is(err, ipset.ErrNotFound) {
		delete(a.members, s.Name)
		return nil
	}
	if err != nil {
		delete(a.members, s.Name)
		return err
	}
	a.members[s.Name] = c.common
	return nil
}

// currentMembers is what a set holds: as last written, or listed when that is not known.
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
