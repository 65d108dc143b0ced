// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/redirect/iptables"
)

// applyChains makes our chains hold the plan's rules. Tables whose chains do so
// already are left alone; any other is written in one step.
func (a *Applier) applyChains(ctx context.Context, tables Tables, f *FamilyPlan) error {
	var text strings.Builder
	for _, table := range reservedTables() {
		chains := f.chainsOf(table)
		same := true
		for _, c := range chains {
			have, err := tables.List(ctx, table, c.Name)
			if err != nil && !errors.Is(err, iptables.ErrNotFound) && !errors.Is(err, iptables.ErrUnreadable) {
				return err
			}
			same = same && err == nil && slices.Equal(have, c.lines())
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
func restoreText(table string, chains []Chain) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", table)
	for _, c := range chains {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c.Name)
	}
	for _, c := range chains {
		for _, l := range c.lines() {
			b.WriteString(l + "\n")
		}
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// lines are the chain's rules as they are read back.
func (c Chain) lines() []string {
	lines := make([]string, 0, len(c.Rules))
	for _, r := range c.Rules {
		lines = append(lines, "-A "+c.Name+" "+r.Spec)
	}
	return lines
}

// applyJumps makes each jump its parent's first rule, and the only one to our
// chains. What is wrong in a table is mended in one step.
func (a *Applier) applyJumps(ctx context.Context, tables Tables, jumps []Jump) error {
	for _, table := range reservedTables() {
		var lines []string
		for _, j := range jumps {
			if j.Table != table {
				continue
			}
			rules, err := tables.List(ctx, table, j.Parent)
			if err != nil {
				return err
			}
			if j.inPlace(rules) {
				continue
			}
			lines = append(lines, deletions(rules)...)
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

// inPlace says whether the jump is the first of its parent's rules, and no
// other of them leads to a chain of ours.
func (j Jump) inPlace(rules []string) bool {
	return len(rules) > 0 && rules[0] == "-A "+j.Parent+" "+j.Spec && !slices.ContainsFunc(rules[1:], ours)
}

// deletions are the commands that remove every jump to our chains.
func deletions(rules []string) []string {
	var lines []string
	for _, r := range rules {
		if ours(r) {
			lines = append(lines, "-D"+strings.TrimPrefix(r, "-A"))
		}
	}
	return lines
}

// ours says whether a rule leads to a chain of ours.
func ours(rule string) bool {
	words := strings.Fields(rule)
	for i, w := range words[:max(0, len(words)-1)] {
		if (w == "-j" || w == "-g") && strings.HasPrefix(words[i+1], ChainPrefix) {
			return true
		}
	}
	return false
}
