// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"slices"
	"strings"
)

// Minimise takes steps and text away from a case as long as it fails and tries lasts.
func Minimise(c Case, tries int, fails func(Case) bool) Case {
	attempt := func(smaller Case) bool {
		if tries--; tries < 0 || !fails(smaller) {
			return false
		}
		c = smaller
		return true
	}
	for again := true; again && tries > 0; {
		again = false
		for list := -1; list < len(c.Replies); list++ {
			for size := len(c.steps(list)); size > 0; size /= 2 {
				for from := 0; from+size <= len(c.steps(list)); {
					if attempt(c.with(list, slices.Delete(slices.Clone(c.steps(list)), from, from+size))) {
						again = true
					} else {
						from += size
					}
				}
			}
		}
	}
	for list := -1; list < len(c.Replies); list++ {
		for i, s := range c.steps(list) {
			for _, text := range shorter(s.Data) {
				smaller := slices.Clone(c.steps(list))
				smaller[i].Data = text
				if attempt(c.with(list, smaller)) {
					break
				}
			}
		}
	}
	return c
}

// steps are those of a reply, or of the client for -1.
func (c Case) steps(list int) []Step {
	if list < 0 {
		return c.Client
	}
	return c.Replies[list].Steps
}

func (c Case) with(list int, steps []Step) Case {
	if list < 0 {
		c.Client = steps
		return c
	}
	c.Replies = slices.Clone(c.Replies)
	c.Replies[list].Steps = steps
	return c
}

// shorter are texts to try instead of a long one.
func shorter(text string) []string {
	if len(text) < 4 {
		return nil
	}
	return []string{text[:1], strings.Repeat("x", len(text)), text[:len(text)/2]}
}
