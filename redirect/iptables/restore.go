// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// around is how many lines of a refused text an error shows on either side.
const around = 3

// Restore writes the text, in iptables-save's form, and leaves everything it
// doesn't name as it is (--noflush). A table changes as a whole or not at all;
// of several tables, those before a refused one have changed.
func (t *Tables) Restore(ctx context.Context, text string) error {
	return t.feed(ctx, text, "--noflush")
}

// Test is Restore without writing: an error means that the commands or the
// kernel lack a match, a target or a set. Of chains that are not there only the
// legacy backend complains.
func (t *Tables) Test(ctx context.Context, text string) error {
	return t.feed(ctx, text, "--noflush", "--test")
}

func (t *Tables) feed(ctx context.Context, text string, args ...string) error {
	args = append(args, "-w", strconv.Itoa(waitSeconds))
	cmd := exec.CommandContext(ctx, t.restore, args...)
	cmd.Stdin = strings.NewReader(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("restore %s %s tables: %w: %s", t.family, t.backend, err, explain(stderr.String(), text))
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
	for i := max(1, n-around); i <= min(len(lines), n+around); i++ {
		mark := " "
		if i == n {
			mark = ">"
		}
		fmt.Fprintf(&b, "\n%s %4d  %s", mark, i, lines[i-1])
	}
	return b.String()
}
