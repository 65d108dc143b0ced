// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Counted is a rule as List returns it, and what it has matched since it was made.
type Counted struct {
	Rule           string
	Packets, Bytes uint64
}

// Counters is List with the kernel's counters.
func (t *Tables) Counters(ctx context.Context, table, chain string) ([]Counted, error) {
	lines, err := t.rules(ctx, table, chain, "-v")
	if err != nil {
		return nil, fmt.Errorf("list %s %s chain %s of table %s: %w", t.family, t.backend, chain, table, err)
	}
	counted := make([]Counted, 0, len(lines))
	for _, line := range lines {
		c, err := parseCounted(line)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", line, err)
		}
		counted = append(counted, c)
	}
	return counted, nil
}

// parseCounted takes the counters out of a line: "-c PACKETS BYTES", which comes before
// the target.
func parseCounted(line string) (Counted, error) {
	words := strings.Split(line, " ")
	for i := range words {
		if words[i] != "-c" || i+2 >= len(words) {
			continue
		}
		packets, err := strconv.ParseUint(words[i+1], 10, 64)
		if err != nil {
			return Counted{}, err
		}
		bytes, err := strconv.ParseUint(words[i+2], 10, 64)
		return Counted{Rule: strings.Join(slices.Delete(words, i, i+3), " "), Packets: packets, Bytes: bytes}, err
	}
	return Counted{Rule: line}, nil
}
