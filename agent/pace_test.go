// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"
)

// paced is a pace and its clock.
type paced struct {
	*pace
	now time.Time
}

func newPaced(debounce time.Duration) *paced {
	return &paced{pace: newPace(debounce), now: time.Unix(1, 0)}
}

// storm has changes come every interval for a while, each round taking cost, and
// returns the share of the time that rounds took and the longest that a change
// waited.
func (p *paced) storm(interval, cost, length time.Duration) (share float64, longest time.Duration) {
	var spent time.Duration
	began := p.now
	for p.now.Sub(began) < length {
		came := p.now
		// Changes that come meanwhile share the round.
		wait := p.next(came)
		p.now = p.now.Add(wait + cost)
		p.done(p.now, cost)
		spent += cost
		longest = max(longest, wait)
		p.now = p.now.Add(interval - p.now.Sub(came)%interval)
	}
	return spent.Seconds() / p.now.Sub(began).Seconds(), longest
}

// TestPaceUnderStorm: in the long run rounds take no more than their share.
func TestPaceUnderStorm(t *testing.T) {
	for name, tt := range map[string]struct {
		interval, cost time.Duration
		share          float64
		longest        time.Duration
	}{
		"cheap rounds":           {interval: 20 * time.Millisecond, cost: 100 * time.Microsecond, share: 0.0051, longest: 5 * time.Millisecond},
		"a large cluster":        {interval: 20 * time.Millisecond, cost: 3 * time.Millisecond, share: 0.0135, longest: 240 * time.Millisecond},
		"dearer than the pause":  {interval: 20 * time.Millisecond, cost: 100 * time.Millisecond, share: 0.1, longest: time.Second},
		"changes without a stop": {interval: time.Millisecond, cost: 3 * time.Millisecond, share: 0.0135, longest: 240 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			share, longest := newPaced(5*time.Millisecond).storm(tt.interval, tt.cost, 10*time.Minute)
			if share > tt.share || share < tt.share*0.8 {
				t.Errorf("rounds take %.4f of the time, want %.4f at most and hardly less", share, tt.share)
			}
			if longest > tt.longest {
				t.Errorf("a change waits %v, want at most %v", longest, tt.longest)
			}
		})
	}
}

// TestPaceOfFewChanges: changes that come alone, or a few together, wait for no
// more than the debounce, soon after a storm as well.
func TestPaceOfFewChanges(t *testing.T) {
	const debounce, cost = 5 * time.Millisecond, 3 * time.Millisecond
	p := newPaced(debounce)
	if wait := p.next(p.now); wait != debounce {
		t.Errorf("the first change waits %v", wait)
	}
	for range 10 {
		if _, longest := p.storm(100*time.Millisecond, cost, time.Second); longest != debounce {
			t.Errorf("of ten changes a second for a second one waits %v", longest)
		}
		p.now = p.now.Add(10 * time.Second)
	}
	p.storm(20*time.Millisecond, cost, time.Minute)
	p.now = p.now.Add(300 * time.Millisecond)
	if wait := p.next(p.now); wait != debounce {
		t.Errorf("a change soon after the storm waits %v", wait)
	}
}

// TestPaceAfterDearRound: the round that reads everything for the first time
// holds up the next one, but not for ever.
func TestPaceAfterDearRound(t *testing.T) {
	p := newPaced(5 * time.Millisecond)
	p.done(p.now, time.Minute)
	if wait := p.next(p.now); wait != paceLongest {
		t.Errorf("the next change waits %v, want %v", wait, paceLongest)
	}
	p.now = p.now.Add(paceLongest)
	if wait := p.next(p.now); wait != p.debounce {
		t.Errorf("a second later a change waits %v", wait)
	}
}
