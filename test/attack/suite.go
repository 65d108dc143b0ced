// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/nodevoy/nodevoy/test/lab"
)

// chosen are the attacks that the flags ask for.
func (c config) chosen() []attack {
	return slices.DeleteFunc(attacks(), func(a attack) bool {
		return c.only != nil && !c.only.MatchString(a.Name) || c.short && (!a.Short || a.Pending != "")
	})
}

// attackAll makes all attacks and prints what came of them. Its error says that some
// succeeded.
func (c config) attackAll(ctx context.Context) error {
	var reports []report
	var failed error
	for _, mode := range c.modes {
		some, err := c.attackIn(ctx, mode, len(reports))
		reports = append(reports, some...)
		if err != nil {
			failed = fmt.Errorf("in mode %s: %w", mode, err)
			break
		}
	}
	fmt.Println()
	if err := printTable(os.Stdout, reports); err != nil {
		return err
	}
	fails := 0
	for _, r := range reports {
		if r.verdict() == "FAIL" {
			fails++
		}
	}
	if fails > 0 {
		failed = errors.Join(failed, fmt.Errorf("%d of %d attacks succeeded", fails, len(reports)))
	}
	return failed
}

// attackIn makes all attacks in one mode, with each number of attackers.
func (c config) attackIn(ctx context.Context, mode lab.Mode, done int) (reports []report, err error) {
	n, err := newNode(ctx, c, mode)
	if n.Lab != nil {
		defer func() { err = errors.Join(err, n.Close()) }()
	}
	if err != nil {
		return nil, err
	}
	all := c.chosen()
	total := len(c.modes) * len(all) * len(c.attackers)
	for _, a := range all {
		for _, attackers := range c.attackers {
			r, err := n.attack(ctx, a, attackers)
			if err != nil {
				return reports, fmt.Errorf("%s by %d: %w", a.Name, attackers, err)
			}
			reports = append(reports, r)
			done++
			fmt.Printf("%d/%d %s\n", done, total, r.progress())
		}
	}
	return reports, nil
}
