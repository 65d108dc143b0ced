// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/iptables"
)

// ErrForeign says that the pod has nat rules of its own for what it sends. They
// would see Envoy's connections too, so the pod is not redirected.
var ErrForeign = errors.New("the pod has nat rules of its own")

// applyInside is applyFamily for a pod's network namespace: a hundred of them
// change together, so that nothing is asked that is known, and a fresh one costs
// one command. It is Drift that finds what is known wrongly.
func (a *Applier) applyInside(ctx context.Context, f *FamilyPlan, ticket uint64) error {
	tables, err := a.kernel.tables(a.cfg.Backend, f.Family)
	if err != nil {
		return err
	}
	inPlace := a.inPlace(f)
	if !inPlace || !a.knows(f) {
		for _, s := range f.sets() {
			if err := a.ensureSet(ctx, tables, s.Spec); err != nil {
				return err
			}
		}
	}
	if err := a.applyFrontends(f.Frontends); err != nil {
		return err
	}
	if !inPlace {
		// Sets are full before there is a rule that looks at them, and the pod's
		// own set is empty until all is done.
		if err := a.applyRulesInside(ctx, tables, f); err != nil {
			return err
		}
		a.rules[f.Family] = f.RenderRules()
		a.log.Debug("rules applied", zap.Stringer("family", f.Family), zap.Stringer("backend", tables.Backend()))
	}
	if was, ok := a.last[f.Family]; !ok || !slices.Equal(was.Pods.Members, f.Pods.Members) || !a.sources.holds(f.Family, ticket) {
		if err := a.sources.engage(f.Pods, ticket); err != nil {
			return err
		}
	}
	a.last[f.Family] = *f
	return nil
}

// inPlace says whether the family's rules were seen in place, and nothing was
// found since.
func (a *Applier) inPlace(f *FamilyPlan) bool {
	if a.rules[f.Family] == "" {
		return false
	}
	if was, ok := a.last[f.Family]; ok && sameChains(was.Chains, f.Chains) && slices.Equal(was.Jumps, f.Jumps) {
		return true
	}
	return a.rules[f.Family] == f.RenderRules()
}

func sameChains(x, y []Chain) bool {
	return slices.EqualFunc(x, y, func(c, d Chain) bool { return c.Table == d.Table && c.Name == d.Name && slices.Equal(c.Rules, d.Rules) })
}

// knows says whether it is known what the frontends' sets hold.
func (a *Applier) knows(f *FamilyPlan) bool {
	for _, s := range f.Frontends {
		if _, ok := a.members[s.Name]; !ok {
			return false
		}
	}
	return true
}

// holds says whether all of the plan was applied since the last release, and
// nothing speaks against it.
func (a *Applier) holds(plan *Plan, ticket uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.swept || len(a.last) != len(plan.Families) {
		return false
	}
	for i := range plan.Families {
		f := &plan.Families[i]
		was, ok := a.last[f.Family]
		if !ok || !a.sources.holds(f.Family, ticket) || !a.inPlace(f) || !slices.Equal(was.Pods.Members, f.Pods.Members) {
			return false
		}
		for _, s := range f.Frontends {
			if have, known := a.members[s.Name]; !known || !a.shared.compare(have, s.Members).equal() {
				return false
			}
		}
	}
	return true
}

// applyRulesInside puts our chain and its jump in place, by one command or none.
func (a *Applier) applyRulesInside(ctx context.Context, tables Tables, f *FamilyPlan) error {
	rules := a.outputs[f.Family]
	var text strings.Builder
	for _, c := range f.Chains {
		have, err := tables.List(ctx, c.Table, c.Name)
		if err != nil && !errors.Is(err, iptables.ErrNotFound) && !errors.Is(err, iptables.ErrUnreadable) {
			return err
		}
		if err != nil || !slices.Equal(have, c.lines()) {
			text.WriteString(strings.TrimSuffix(restoreText(c.Table, []Chain{c}), "COMMIT\n"))
		}
	}
	for _, j := range f.Jumps {
		if j.inPlace(rules) {
			continue
		}
		if text.Len() == 0 {
			fmt.Fprintf(&text, "*%s\n", j.Table)
		}
		for _, l := range deletions(rules) {
			text.WriteString(l + "\n")
		}
		fmt.Fprintf(&text, "-I %s 1 %s\n", j.Parent, j.Spec)
	}
	if text.Len() == 0 {
		return nil
	}
	return tables.Restore(ctx, text.String()+"COMMIT\n")
}

// rest removes everything of ours from a pod's namespace but what atRest says.
func (a *Applier) rest(ctx context.Context) error {
	a.Forget()
	a.mu.Lock()
	defer a.mu.Unlock()
	errs := []error{a.sources.release()}
	for _, t := range a.kernel.Tables {
		errs = append(errs, restIn(ctx, t))
	}
	return errors.Join(append(errs, a.removeSets(ctx))...)
}

// restIn puts our chain of one backend and family at rest, if there is one.
func restIn(ctx context.Context, t Tables) error {
	c := atRest()
	have, err := t.List(ctx, c.Table, c.Name)
	switch {
	case errors.Is(err, iptables.ErrNotFound):
		return nil
	case errors.Is(err, iptables.ErrUnreadable):
		have = nil
	case err != nil:
		return err
	}
	rules, err := t.List(ctx, c.Table, "OUTPUT")
	if err != nil {
		return err
	}
	jumps := deletions(rules)
	if slices.Equal(have, c.lines()) && len(jumps) == 0 {
		return nil
	}
	text := strings.TrimSuffix(restoreText(c.Table, []Chain{c}), "COMMIT\n")
	for _, l := range jumps {
		text += l + "\n"
	}
	return t.Restore(ctx, text+"COMMIT\n")
}

// survey lists what is in the pod's nat OUTPUT, of families whose rules are not
// known to be in place. It comes before anything is written: a pod is redirected
// for all families, or for none because of its own rules in one.
func (a *Applier) survey(ctx context.Context, plan *Plan) error {
	clear(a.outputs)
	for i := range plan.Families {
		f := &plan.Families[i]
		if a.inPlace(f) {
			continue
		}
		rules, err := a.ownRules(ctx, f.Family)
		if err != nil {
			return err
		}
		a.outputs[f.Family] = rules
	}
	return nil
}

// ownRules lists what is in the pod's nat OUTPUT of our backend; ErrForeign when
// anything but a jump of ours is there, or in that of the other backend, or in
// any chain like it.
func (a *Applier) ownRules(ctx context.Context, f family.Family) ([]string, error) {
	var own []string
	for _, t := range a.kernel.Tables {
		if t.Family() != f {
			continue
		}
		rules, err := t.List(ctx, "nat", "OUTPUT")
		if errors.Is(err, iptables.ErrUnreadable) {
			return nil, fmt.Errorf("%w: %s nat OUTPUT, written by nft", ErrForeign, t.Backend())
		}
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			if !ours(r) {
				return nil, fmt.Errorf("%w: %s %s nat: %s", ErrForeign, f, t.Backend(), r)
			}
		}
		chains, err := t.Outputs()
		if err != nil {
			return nil, err
		}
		if len(chains) > 0 {
			return nil, fmt.Errorf("%w: nft chain %s", ErrForeign, chains[0])
		}
		if t.Backend() == a.cfg.Backend {
			own = rules
		}
	}
	return own, nil
}

// driftForeign adds the pod's own rules to what was found.
func (a *Applier) driftForeign(ctx context.Context, f *FamilyPlan, found []Drift) ([]Drift, error) {
	_, err := a.ownRules(ctx, f.Family)
	if errors.Is(err, ErrForeign) {
		return append(found, Drift{DriftForeign, f.Family.String() + " nat OUTPUT", err.Error()}), nil
	}
	return found, err
}

// narrow stops redirecting families that the plan has no more, and forgets them.
func (a *Applier) narrow(plan *Plan) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, f := range family.All() {
		if slices.ContainsFunc(plan.Families, func(fp FamilyPlan) bool { return fp.Family == f }) {
			continue
		}
		if _, had := a.last[f]; !had {
			continue
		}
		delete(a.last, f)
		delete(a.rules, f)
		a.swept = false
		errs = append(errs, a.sources.drop(f))
	}
	return errors.Join(errs...)
}
