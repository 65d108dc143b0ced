// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
)

// chosen are the attacks that the flags ask for.
func (c config) chosen() []attack {
	return slices.DeleteFunc(attacks(), func(a attack) bool {
		return c.only != nil && !c.only.MatchString(a.Name) || c.short && (!a.Short || a.harms.by(1) != "")
	})
}

// attackAll makes all attacks and prints what came of them. Its error says that some
// succeeded.
func (c config) attackAll(ctx context.Context) error {
	all := c.chosen()
	total := len(all) * len(c.modes) * len(c.attackers)
	var reports []report
	fails := 0
	for _, a := range all {
		for _, mode := range c.modes {
			for _, attackers := range c.attackers {
				r, err := c.attack(ctx, a, mode, attackers)
				if ctx.Err() != nil {
					break
				}
				if err != nil {
					r.Faults = append(r.Faults, fmt.Sprintf("the suite failed: %v", err))
				}
				reports = append(reports, r)
				if r.verdict() == failed {
					fails++
				}
				fmt.Printf("%d/%d %s\n", len(reports), total, r.progress())
			}
		}
	}
	fmt.Println()
	if err := printTable(os.Stdout, reports); err != nil {
		return err
	}
	if fails > 0 {
		return fmt.Errorf("%d of %d attacks succeeded", fails, len(reports))
	}
	return ctx.Err()
}
