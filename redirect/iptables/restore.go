// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// contextLines is how many lines of a refused text an error shows on either side.
const contextLines = 3

// Restore writes the text, in iptables-save's form, and leaves everything it
// doesn't name as it is (--noflush). A table changes as a whole or not at all;
// of several tables, those before a refused one have changed. ErrBusy when another
// process held the lock.
func (t *Tables) Restore(ctx context.Context, text string) error {
	return t.feed(ctx, text, "--noflush")
}

// Test is Restore without writing: ErrUnsupported means that the commands or the
// kernel lack a match, a target or a set. Of chains that are not there only the legacy
// backend complains.
func (t *Tables) Test(ctx context.Context, text string) error {
	return t.feed(ctx, text, "--noflush", "--test")
}

func (t *Tables) feed(ctx context.Context, text string, args ...string) error {
	if err := t.checkTables(text); err != nil {
		return fmt.Errorf("restore %s %s tables: %w", t.family, t.backend, err)
	}
	_, err := t.run(ctx, text, t.restore, args...)
	var f *failure
	if errors.As(err, &f) {
		return fmt.Errorf("restore %s %s tables: %w: %s", t.family, t.backend, f.err, explain(f.stderr, text))
	}
	if err != nil {
		return fmt.Errorf("restore %s %s tables: %w", t.family, t.backend, err)
	}
	return nil
}

// checkTables is dump.ErrTooMuch if a table that the text names is beyond the bound:
// the command may read all of it, and of the legacy backend write it.
func (t *Tables) checkTables(text string) error {
	if t.maxTable == 0 {
		return nil
	}
	for line := range strings.Lines(text) {
		if table, ok := strings.CutPrefix(strings.TrimSpace(line), "*"); ok {
			if _, err := t.exists(table, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// explain adds to what the command complained of the lines it means.
func explain(complaint, text string) string {
	complaint = strings.TrimSpace(complaint)
	// "line 3 failed" or "Error occurred at line: 3", by version and fault.
	found := regexp.MustCompile(`line:? (\d+)`).FindStringSubmatch(complaint)
	if found == nil {
		return complaint
	}
	n, err := strconv.Atoi(found[1])
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if err != nil || n < 1 || n > len(lines) {
		return complaint
	}
	var b strings.Builder
	b.WriteString(complaint)
	for i := max(1, n-contextLines); i <= min(len(lines), n+contextLines); i++ {
		mark := " "
		if i == n {
			mark = ">"
		}
		fmt.Fprintf(&b, "\n%s %4d  %s", mark, i, lines[i-1])
	}
	return b.String()
}
