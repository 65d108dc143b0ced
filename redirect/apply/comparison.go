// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"sync"

	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// diff compares two sorted lists: what only want has, and what only have has.
func diff(have, want []netfilter.Member) (missing, extra []netfilter.Member) {
	for len(have) > 0 && len(want) > 0 {
		switch c := have[0].Compare(want[0]); {
		case c == 0:
			have, want = have[1:], want[1:]
		case c < 0:
			extra, have = append(extra, have[0]), have[1:]
		default:
			missing, want = append(missing, want[0]), want[1:]
		}
	}
	return append(missing, want...), append(extra, have...)
}

// without is a sorted list less those of another.
func without(list, less []netfilter.Member) []netfilter.Member {
	_, rest := diff(list, less)
	return rest
}

// comparison is how two lists differ: what is missing of the second in the first,
// what the first has beyond the second, and what both have.
type comparison struct{ missing, extra, common []netfilter.Member }

// equal says that they don't.
func (c comparison) equal() bool { return len(c.missing)+len(c.extra) == 0 }

// comparisons remembers those of one round. Many pods hold one list and are to
// hold one other, so that the two are compared but once, and what all are left
// with is one list again.
type comparisons struct {
	mu   sync.Mutex
	done map[pair]comparison
}

// pair is two lists by where they are. A list in use is never written to.
type pair struct {
	have, want   *netfilter.Member
	haves, wants int
}

// compare compares two sorted lists.
func (c *comparisons) compare(have, want []netfilter.Member) comparison {
	p := pair{haves: len(have), wants: len(want)}
	if len(have) > 0 {
		p.have = &have[0]
	}
	if len(want) > 0 {
		p.want = &want[0]
	}
	if p.have == p.want && p.haves == p.wants {
		return comparison{common: want}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.done[p]; ok {
		return known
	}
	var found comparison
	found.missing, found.extra = diff(have, want)
	switch {
	case len(found.extra) == 0:
		found.common = have
	case len(found.missing) == 0:
		found.common = want
	default:
		found.common = without(have, found.extra)
	}
	if c.done != nil {
		c.done[p] = found
	}
	return found
}

// Remember keeps comparisons from now on, until the function it returns is called.
func (c *comparisons) Remember() (forget func()) {
	set := func(m map[pair]comparison) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.done = m
	}
	set(map[pair]comparison{})
	return func() { set(nil) }
}
