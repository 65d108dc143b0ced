// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// How long to wait for the kernel to free a set: nf_tables destroys a
// deleted rule a moment after it has gone.
const (
	destroyInterval = 10 * time.Millisecond
	destroyAttempts = 300
)

// Cleanup removes everything of ours from the node, whatever mechanism or
// backend made it: pods first, so that nothing is redirected any more, then
// jumps and chains, sets, routes, addresses. It goes on after a failure and
// returns them all; doing it twice is no error.
func (a *Applier) Cleanup(ctx context.Context) error {
	a.Forget()
	a.mu.Lock()
	defer a.mu.Unlock()
	disengage := a.Disengage
	if a.inPod {
		// Of this namespace only.
		disengage = a.DisengagePod
	}
	// No Apply is under way that could engage again.
	errs := []error{disengage()}
	for _, t := range a.kernel.Tables {
		errs = append(errs, a.removeHooks(ctx, t, nil))
	}
	errs = append(errs, a.removeSets(ctx))
	if !a.inPod {
		errs = append(errs, a.removeNetwork())
	}
	return errors.Join(errs...)
}

// sweep removes, once, what an agent of another configuration left: chains of
// the other mechanism, backend or family. As long as such are there, no pod is
// redirected.
func (a *Applier) sweep(ctx context.Context, desired *plan.Plan) error {
	if a.swept {
		return nil
	}
	for _, t := range a.kernel.Tables {
		keep := func(h plan.Hook) bool { return t.Backend() == a.cfg.Backend && desired.HasChain(t.Family(), h) }
		if err := a.removeHooks(ctx, t, keep); err != nil {
			return fmt.Errorf("remove rules of another configuration: %w", err)
		}
	}
	if desired.Mechanism == plan.DNAT {
		for _, f := range family.All() {
			if err := a.kernel.Network.DeleteRule(a.cfg.PolicyRule(f)); err != nil {
				return err
			}
		}
	}
	a.swept = true
	return nil
}

// removeHooks removes our jumps and chains, except those to keep; nil keeps none.
// The family is disengaged first: it is redirected again only by an Apply that
// comes to its end.
func (a *Applier) removeHooks(ctx context.Context, t Tables, keep func(plan.Hook) bool) error {
	var errs []error
	for _, table := range plan.Tables() {
		var found []plan.Hook
		for _, h := range plan.Hooks() {
			if h.Table != table || (a.inPod && !h.InPod) || (keep != nil && keep(h)) {
				continue
			}
			_, err := t.List(ctx, table, h.Chain)
			switch {
			case iptables.Present(err):
				found = append(found, h)
			case !errors.Is(err, iptables.ErrNotFound):
				errs = append(errs, err)
			}
		}
		if len(found) > 0 {
			delete(a.rules, t.Family())
			delete(a.last, t.Family())
			errs = append(errs, a.disengageFamily(t.Family()), removeTable(ctx, t, table, found))
			// A connection that was redirected needs the nat table to the end.
			if !a.inPod {
				errs = append(errs, t.DropEmpty(table))
			}
		}
	}
	return errors.Join(errs...)
}

// removeTable removes chains of one table in one step, after what jumps there.
// Where jumps can't be read the chains are emptied at least.
func removeTable(ctx context.Context, t Tables, table string, found []plan.Hook) error {
	var jumps, flushes, deletes []string
	var unread error
	for _, h := range found {
		flushes = append(flushes, "-F "+h.Chain)
		deletes = append(deletes, "-X "+h.Chain)
		if h.Parent == "" {
			continue
		}
		rules, err := t.List(ctx, table, h.Parent)
		unread = errors.Join(unread, err)
		jumps = append(jumps, plan.Deletions(rules)...)
	}
	lines := slices.Concat(jumps, flushes, deletes)
	if unread != nil {
		lines = flushes
	}
	err := t.Restore(ctx, restoreText(table, nil, lines...))
	return errors.Join(unread, err)
}

func (a *Applier) removeSets(ctx context.Context) error {
	names, err := a.kernel.Sets.Names()
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range family.All() {
		for _, set := range plan.SetNames(f) {
			if slices.Contains(names, set) {
				errs = append(errs, a.destroySet(ctx, set))
			}
		}
	}
	return errors.Join(errs...)
}

// destroySet destroys a set that was in use a moment ago.
func (a *Applier) destroySet(ctx context.Context, set string) error {
	tick := time.NewTicker(destroyInterval)
	defer tick.Stop()
	for range destroyAttempts {
		err := a.kernel.Sets.Destroy(set)
		if !errors.Is(err, ipset.ErrInUse) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
	return fmt.Errorf("destroy set %s: %w: by a rule that is not ours", set, ipset.ErrInUse)
}

func (a *Applier) removeNetwork() error {
	var errs []error
	for _, f := range family.All() {
		have, err := a.kernel.Network.Addresses(f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if addr := a.cfg.Address(f); slices.Contains(have, addr) {
			errs = append(errs, a.kernel.Network.DeleteAddress(addr))
		}
		errs = append(errs, a.kernel.Network.DeleteRule(a.cfg.PolicyRule(f)))
	}
	return errors.Join(errs...)
}
