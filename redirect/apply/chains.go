// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// applyChains makes our chains hold the plan's rules. Tables whose chains do so
// already are left alone; any other is written in one step.
func (a *Applier) applyChains(ctx context.Context, tables Tables, f *plan.FamilyPlan) error {
	var text strings.Builder
	for _, table := range plan.Tables() {
		chains := f.ChainsOf(table)
		same := true
		for _, c := range chains {
			inPlace, err := chainInPlace(ctx, tables, c)
			if err != nil {
				return err
			}
			same = same && inPlace
		}
		if !same {
			text.WriteString(restoreText(table, chains))
		}
	}
	if text.Len() == 0 {
		return nil
	}
	return tables.Restore(ctx, text.String())
}

// chainInPlace says whether a chain is there and has its rules, no others.
func chainInPlace(ctx context.Context, tables Tables, c plan.Chain) (bool, error) {
	have, err := tables.List(ctx, c.Table, c.Name)
	if !errors.Is(err, iptables.ErrNotFound) && !iptables.Present(err) {
		return false, err
	}
	return err == nil && slices.Equal(have, c.Lines()), nil
}

// restoreText makes or empties chains of a table, fills them, and then runs other
// commands, all in one step.
func restoreText(table string, chains []plan.Chain, commands ...string) string {
	lines := []string{"*" + table}
	for _, c := range chains {
		lines = append(lines, fmt.Sprintf(":%s - [0:0]", c.Name))
	}
	for _, c := range chains {
		lines = append(lines, c.Lines()...)
	}
	return strings.Join(append(append(lines, commands...), "COMMIT"), "\n") + "\n"
}

// applyJumps makes each jump its parent's first rule, and the only one to our
// chains. What is wrong in a table is mended in one step.
func (a *Applier) applyJumps(ctx context.Context, tables Tables, f *plan.FamilyPlan) error {
	for _, table := range plan.Tables() {
		var commands []string
		for _, j := range f.JumpsOf(table) {
			rules, err := tables.List(ctx, table, j.Parent)
			if err != nil {
				return err
			}
			commands = append(commands, jumpCommands(j, rules)...)
		}
		if len(commands) == 0 {
			continue
		}
		if err := tables.Restore(ctx, restoreText(table, nil, commands...)); err != nil {
			return err
		}
	}
	return nil
}

// jumpCommands make a jump the first of its parent's rules; none if it is.
func jumpCommands(j plan.Jump, rules []string) []string {
	if j.InPlace(rules) {
		return nil
	}
	return append(plan.Deletions(rules), fmt.Sprintf("-I %s 1 %s", j.Parent, j.Spec))
}
