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
			have, err := tables.List(ctx, table, c.Name)
			if !errors.Is(err, iptables.ErrNotFound) && !iptables.Present(err) {
				return err
			}
			same = same && err == nil && slices.Equal(have, c.Lines())
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

// restoreText makes or empties chains, and fills them.
func restoreText(table string, chains []plan.Chain) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", table)
	for _, c := range chains {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c.Name)
	}
	for _, c := range chains {
		for _, l := range c.Lines() {
			b.WriteString(l + "\n")
		}
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// applyJumps makes each jump its parent's first rule, and the only one to our
// chains. What is wrong in a table is mended in one step.
func (a *Applier) applyJumps(ctx context.Context, tables Tables, jumps []plan.Jump) error {
	for _, table := range plan.Tables() {
		var lines []string
		for _, j := range jumps {
			if j.Table != table {
				continue
			}
			rules, err := tables.List(ctx, table, j.Parent)
			if err != nil {
				return err
			}
			if j.InPlace(rules) {
				continue
			}
			lines = append(lines, plan.Deletions(rules)...)
			lines = append(lines, fmt.Sprintf("-I %s 1 %s", j.Parent, j.Spec))
		}
		if len(lines) == 0 {
			continue
		}
		text := fmt.Sprintf("*%s\n%s\nCOMMIT\n", table, strings.Join(lines, "\n"))
		if err := tables.Restore(ctx, text); err != nil {
			return err
		}
	}
	return nil
}
