// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// ErrForeignRules says that the pod has nat rules of its own for what it sends. They
// would see Envoy's connections too, so the pod is not redirected.
var ErrForeignRules = errors.New("the pod has nat rules of its own")

// applyPodFamily is applyFamily for a pod's network namespace: a hundred of them
// change together, so that nothing is asked that is known, and a fresh one costs
// one command. It is Drift that finds what is known wrongly.
func (a *Applier) applyPodFamily(ctx context.Context, f *plan.FamilyPlan, ticket uint64) error {
	tables, err := a.kernel.TablesOf(a.cfg.Backend, f.Family)
	if err != nil {
		return err
	}
	inPlace := a.inPlace(f)
	if !inPlace || !a.knowsMembers(f) {
		for _, s := range f.Sets() {
			if err := a.ensureSet(ctx, tables, s.SetSpec); err != nil {
				return err
			}
		}
	}
	if err := a.applyFrontends(ctx, f.Frontends); err != nil {
		return err
	}
	if !inPlace {
		// Sets are full before there is a rule that looks at them, and the pod's
		// own set is empty until all is done.
		if err := a.applyPodRules(ctx, tables, f); err != nil {
			return err
		}
		a.rules[f.Family] = f.RenderRules()
		a.log.Debug("rules applied", zap.Stringer("family", f.Family), zap.Stringer("backend", tables.Backend()))
	}
	if !a.engagedWith(f, ticket) {
		if err := a.engage(f.Pods, ticket); err != nil {
			return err
		}
	}
	a.last[f.Family] = *f
	return nil
}

// engagedWith says whether the family was last engaged with this ticket, and with
// the pods it has now.
func (a *Applier) engagedWith(f *plan.FamilyPlan, ticket uint64) bool {
	was, ok := a.last[f.Family]
	return ok && slices.Equal(was.Pods.Members, f.Pods.Members) && a.engagedBy(f.Family, ticket)
}

// inPlace says whether the family's rules were seen in place, and nothing was
// found since.
func (a *Applier) inPlace(f *plan.FamilyPlan) bool {
	if a.rules[f.Family] == "" {
		return false
	}
	if was, ok := a.last[f.Family]; ok && sameChains(was.Chains, f.Chains) && slices.Equal(was.Jumps, f.Jumps) {
		return true
	}
	return a.rules[f.Family] == f.RenderRules()
}

func sameChains(x, y []plan.Chain) bool {
	return slices.EqualFunc(x, y, func(c, d plan.Chain) bool {
		return c.Table == d.Table && c.Name == d.Name && slices.Equal(c.Rules, d.Rules)
	})
}

// knowsMembers says whether it is known what the frontends' sets hold.
func (a *Applier) knowsMembers(f *plan.FamilyPlan) bool {
	for _, s := range f.Frontends {
		if _, ok := a.members[s.Name]; !ok {
			return false
		}
	}
	return true
}

// Holds says whether all of the plan was applied with this ticket, and nothing was
// found amiss since.
func (a *Applier) Holds(desired *plan.Plan, ticket uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.swept || len(a.last) != len(desired.Families) {
		return false
	}
	for i := range desired.Families {
		f := &desired.Families[i]
		if !a.engagedWith(f, ticket) || !a.inPlace(f) {
			return false
		}
		for _, s := range f.Frontends {
			if have, known := a.members[s.Name]; !known || !a.group.compare(have, s.Members).equal() {
				return false
			}
		}
	}
	return true
}

// applyPodRules puts our chain and its jump in place, by one command or none.
func (a *Applier) applyPodRules(ctx context.Context, tables Tables, f *plan.FamilyPlan) error {
	var chains []plan.Chain
	for _, c := range f.Chains {
		inPlace, err := chainInPlace(ctx, tables, c)
		if err != nil {
			return err
		}
		if !inPlace {
			chains = append(chains, c)
		}
	}
	var jumps []string
	for _, j := range f.Jumps {
		jumps = append(jumps, jumpCommands(j, a.outputs[f.Family])...)
	}
	if len(chains)+len(jumps) == 0 {
		return nil
	}
	return tables.Restore(ctx, restoreText("nat", chains, jumps...))
}

// Drain removes everything of ours from a pod's namespace but plan.DrainChain.
func (a *Applier) Drain(ctx context.Context) error {
	a.Forget()
	a.mu.Lock()
	defer a.mu.Unlock()
	errs := []error{a.DisengagePod()}
	for _, t := range a.kernel.Tables {
		errs = append(errs, drainTables(ctx, t))
	}
	return errors.Join(append(errs, a.removeSets(ctx))...)
}

// drainTables makes our chain of one backend and family the drain chain, if there
// is one.
func drainTables(ctx context.Context, t Tables) error {
	c := plan.DrainChain()
	have, err := t.List(ctx, c.Table, c.Name)
	switch {
	case errors.Is(err, iptables.ErrNotFound):
		return nil
	case !iptables.Present(err):
		return err
	}
	rules, err := t.List(ctx, c.Table, "OUTPUT")
	if err != nil {
		return err
	}
	jumps := plan.Deletions(rules)
	if slices.Equal(have, c.Lines()) && len(jumps) == 0 {
		return nil
	}
	return t.Restore(ctx, restoreText(c.Table, []plan.Chain{c}, jumps...))
}

// listOutputs lists what is in the pod's nat OUTPUT, of families whose rules are not
// known to be in place. It comes before anything is written: a pod is redirected
// for all families, or for none because of its own rules in one.
func (a *Applier) listOutputs(ctx context.Context, desired *plan.Plan) error {
	clear(a.outputs)
	for i := range desired.Families {
		f := &desired.Families[i]
		if a.inPlace(f) {
			continue
		}
		rules, err := a.podOutput(ctx, f.Family)
		if err != nil {
			return err
		}
		a.outputs[f.Family] = rules
	}
	return nil
}

// podOutput lists what is in the pod's nat OUTPUT of our backend; ErrForeignRules when
// anything but a jump of ours is there, or in that of the other backend, or in
// any chain like it.
func (a *Applier) podOutput(ctx context.Context, f family.Family) ([]string, error) {
	var own []string
	for _, t := range a.kernel.Tables {
		if t.Family() != f {
			continue
		}
		rules, err := t.List(ctx, "nat", "OUTPUT")
		if errors.Is(err, iptables.ErrUnreadable) {
			return nil, fmt.Errorf("%w: %s nat OUTPUT, written by nft", ErrForeignRules, t.Backend())
		}
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			if !plan.IsOurJump(r) {
				return nil, fmt.Errorf("%w: %s %s nat: %s", ErrForeignRules, f, t.Backend(), r)
			}
		}
		chains, err := t.Outputs()
		if err != nil {
			return nil, err
		}
		if len(chains) > 0 {
			return nil, fmt.Errorf("%w: nft chain %s", ErrForeignRules, chains[0])
		}
		if t.Backend() == a.cfg.Backend {
			own = rules
		}
	}
	return own, nil
}

// driftForeign adds the pod's own rules to what was found.
func (a *Applier) driftForeign(ctx context.Context, f *plan.FamilyPlan, found []Drift) ([]Drift, error) {
	_, err := a.podOutput(ctx, f.Family)
	if errors.Is(err, ErrForeignRules) {
		return append(found, Drift{DriftForeign, f.Family.String() + " nat OUTPUT", err.Error()}), nil
	}
	return found, err
}

// withdrawFamilies stops redirecting families that the plan no longer has, and forgets them.
func (a *Applier) withdrawFamilies(desired *plan.Plan) error {
	var errs []error
	for _, f := range family.All() {
		_, had := a.last[f]
		if !had || slices.ContainsFunc(desired.Families, func(fp plan.FamilyPlan) bool { return fp.Family == f }) {
			continue
		}
		delete(a.last, f)
		delete(a.rules, f)
		a.swept = false
		errs = append(errs, a.disengageFamily(f))
	}
	return errors.Join(errs...)
}
