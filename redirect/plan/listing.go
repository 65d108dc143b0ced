// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/redirect/family"
)

// HasChain says whether the plan has the chain.
func (p *Plan) HasChain(f family.Family, h Hook) bool {
	for i := range p.Families {
		if p.Families[i].Family == f {
			return slices.ContainsFunc(p.Families[i].Chains, func(c Chain) bool { return c.Table == h.Table && c.Name == h.Chain })
		}
	}
	return false
}

// Lines are the chain's rules as they are read back.
func (c Chain) Lines() []string {
	lines := make([]string, 0, len(c.Rules))
	for _, r := range c.Rules {
		lines = append(lines, "-A "+c.Name+" "+r.Spec)
	}
	return lines
}

// InPlace says whether the jump is the first of its parent's rules, and no
// other of them leads to a chain of ours.
func (j Jump) InPlace(rules []string) bool {
	return len(rules) > 0 && rules[0] == "-A "+j.Parent+" "+j.Spec && !slices.ContainsFunc(rules[1:], IsOurJump)
}

// Deletions are the commands that remove every jump to our chains.
func Deletions(rules []string) []string {
	var lines []string
	for _, r := range rules {
		if IsOurJump(r) {
			lines = append(lines, "-D"+strings.TrimPrefix(r, "-A"))
		}
	}
	return lines
}

// IsOurJump says whether a rule leads to a chain of ours.
func IsOurJump(rule string) bool {
	words := strings.Fields(rule)
	for i, w := range words[:max(0, len(words)-1)] {
		if (w == "-j" || w == "-g") && strings.HasPrefix(words[i+1], ChainPrefix) {
			return true
		}
	}
	return false
}
