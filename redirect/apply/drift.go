// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// Drift is a difference between a plan and the kernel.
type Drift struct {
	// Kind is one of the Drift constants; Name says which of its kind.
	Kind, Name string
	// Detail is what was wanted and what was found.
	Detail string
}

// The kinds of drift.
const (
	DriftAddress = "address"
	DriftRouting = "routing"
	DriftSet     = "set"
	DriftMembers = "members"
	DriftChain   = "chain"
	DriftJump    = "jump"
	// DriftForeign is a rule of the pod's own, of PodMode only.
	DriftForeign = "foreign rule"
)

// fullCheck is every how many calls Drift lists the members of large sets; in
// the others it counts them.
const fullCheck = 16

// Drift compares the plan, which Apply has put in place, with what the kernel
// holds of it, and returns every difference; the next Apply mends them. It
// reads our own chains and sets and the chains with our jumps, nothing else.
func (a *Applier) Drift(ctx context.Context, desired *plan.Plan) ([]Drift, error) {
	a.mu.Lock()
	full := a.checks%fullCheck == 0
	a.checks++
	a.mu.Unlock()
	return a.DriftWith(ctx, desired, full)
}

// DriftWith is Drift that lists the members of large sets, or doesn't.
func (a *Applier) DriftWith(ctx context.Context, desired *plan.Plan, full bool) ([]Drift, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found []Drift
	var errs []error
	for i := range desired.Families {
		f := &desired.Families[i]
		rules, err := a.driftRules(ctx, f, full && a.inPod)
		if len(rules) > 0 || err != nil {
			delete(a.rules, f.Family)
		}
		errs = append(errs, err)
		sets, err := a.driftSets(ctx, f, full)
		if len(rules)+len(sets) > 0 {
			delete(a.last, f.Family)
		}
		errs = append(errs, err)
		found = slices.Concat(found, rules, sets)
		if !a.inPod {
			network, err := a.driftNetwork(f)
			errs = append(errs, err)
			found = append(found, network...)
		}
	}
	return found, errors.Join(errs...)
}

// driftRules compares chains and jumps, unless nothing at all has changed in
// the tables since they were last found in place. With all it compares in any case:
// the other backend has no such number.
func (a *Applier) driftRules(ctx context.Context, f *plan.FamilyPlan, all bool) ([]Drift, error) {
	tables, err := a.kernel.TablesOf(a.cfg.Backend, f.Family)
	if err != nil {
		return nil, err
	}
	generation, err := tables.Generation()
	if err != nil {
		return nil, err
	}
	if !all && generation != 0 && generation == a.checked[f.Family] && a.inPlace(f) {
		return nil, nil
	}
	delete(a.checked, f.Family)
	found, err := compareRules(ctx, tables, f)
	if a.inPod && err == nil {
		found, err = a.driftForeign(ctx, f, found)
	}
	if len(found) == 0 && err == nil {
		// The generation from before the look: what came meanwhile is looked
		// at the next time.
		a.checked[f.Family] = generation
	}
	return found, err
}

func compareRules(ctx context.Context, tables Tables, f *plan.FamilyPlan) ([]Drift, error) {
	var found []Drift
	for _, c := range f.Chains {
		have, err := tables.List(ctx, c.Table, c.Name)
		name := fmt.Sprintf("%s %s %s", f.Family, c.Table, c.Name)
		switch {
		case errors.Is(err, iptables.ErrNotFound):
			found = append(found, Drift{DriftChain, name, "missing"})
		case err != nil && iptables.Present(err):
			found = append(found, Drift{DriftChain, name, err.Error()})
		case err != nil:
			return found, err
		case !slices.Equal(have, c.Lines()):
			found = append(found, Drift{DriftChain, name, firstDifference(c.Lines(), have)})
		}
	}
	for _, j := range f.Jumps {
		have, err := tables.List(ctx, j.Table, j.Parent)
		if err != nil {
			return found, err
		}
		if !j.InPlace(have) {
			name := fmt.Sprintf("%s %s %s", f.Family, j.Table, j.Parent)
			found = append(found, Drift{DriftJump, name, jumpDetail(j, have)})
		}
	}
	return found, nil
}

// firstDifference shows one rule that should be there and what is in its place.
func firstDifference(want, have []string) string {
	for i := range max(len(want), len(have)) {
		w, h := "nothing", "nothing"
		if i < len(want) {
			w = want[i]
		}
		if i < len(have) {
			h = have[i]
		}
		if w != h {
			return fmt.Sprintf("rule %d: want %s, found %s", i+1, w, h)
		}
	}
	return ""
}

func jumpDetail(j plan.Jump, have []string) string {
	at := slices.Index(have, "-A "+j.Parent+" "+j.Spec)
	switch {
	case at < 0 && !slices.ContainsFunc(have, plan.IsOurJump):
		return "missing"
	case at != 0:
		return "not the first rule: found " + have[0] + " before it"
	default:
		return fmt.Sprintf("found %d jumps, want 1", len(plan.Deletions(have)))
	}
}

func (a *Applier) driftSets(ctx context.Context, f *plan.FamilyPlan, full bool) ([]Drift, error) {
	var found []Drift
	for _, s := range f.Sets() {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		have, err := a.kernel.Sets.Header(s.Name)
		if err != nil && !errors.Is(err, ipset.ErrNotFound) {
			return found, err
		}
		if err != nil || have.SetSpec != s.SetSpec {
			detail := "missing"
			if err == nil {
				detail = fmt.Sprintf("want %s, found %s", plan.CreateLine(s.SetSpec), plan.CreateLine(have.SetSpec))
			}
			found = append(found, Drift{DriftSet, s.Name, detail})
			delete(a.members, s.Name)
			continue
		}
		missing, extra, err := a.driftMembers(s, have.Count, full)
		if err != nil {
			return found, err
		}
		if len(missing)+len(extra) > 0 {
			delete(a.members, s.Name)
			found = append(found, Drift{DriftMembers, s.Name, membersDetail(s.Type, missing, extra)})
		}
	}
	return found, nil
}

// driftMembers compares members with what was last written; those of large sets
// only when their number differs, or when all are to be looked at.
func (a *Applier) driftMembers(s plan.Set, count int, full bool) (missing, extra []netfilter.Member, err error) {
	if s.Name == plan.PodsSet(s.Family) {
		return a.driftPods(s)
	}
	want, known := a.members[s.Name]
	if !known || (count == len(want) && !full) {
		return nil, nil, nil
	}
	have, err := a.kernel.Sets.Members(s.Name)
	if err != nil {
		return nil, nil, err
	}
	missing, extra = diff(have, want)
	return missing, extra, nil
}

// membersDetail names a few of the members in question.
func membersDetail(t netfilter.SetType, missing, extra []netfilter.Member) string {
	const few = 3
	name := func(list []netfilter.Member) string {
		var b strings.Builder
		for i, m := range list {
			if i == few {
				return b.String() + " and more"
			}
			b.WriteString(" " + plan.MemberText(t, m))
		}
		return b.String()
	}
	return fmt.Sprintf("%d missing%s, %d too many%s", len(missing), name(missing), len(extra), name(extra))
}

func (a *Applier) driftNetwork(f *plan.FamilyPlan) ([]Drift, error) {
	var found []Drift
	have, err := a.kernel.Network.Addresses(f.Family)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(have, f.Address) {
		found = append(found, Drift{DriftAddress, f.Address.String(), "missing on lo"})
	}
	if f.Routing == nil {
		return found, nil
	}
	there, err := a.kernel.Network.HasRule(*f.Routing)
	if err == nil && !there {
		found = append(found, Drift{DriftRouting, fmt.Sprintf("%s table %d", f.Family, f.Routing.Table), "policy rule or route missing"})
	}
	return found, err
}
