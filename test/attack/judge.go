// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"
)

// The victim's p99 may be this many times that of before, or this long, whichever is
// more. On a busy machine, where a pod that doesn't use Envoy isn't served in time
// either, it is busyLimit, or twice what it is for that one.
const (
	slower    = 5
	slowLimit = 10 * time.Millisecond
	busyLimit = 50 * time.Millisecond
)

// busy is whether the machine itself was too slow for anybody: the control's requests
// took what the victim's must not, or half of it.
func (r report) busy() bool { return r.Control.P99 > slowLimit/2 }

// allowed is how long a request may take at p99, given what it took before.
func (r report) allowed(before time.Duration) time.Duration {
	limit := max(slower*before, slowLimit)
	if r.busy() {
		limit = max(limit, busyLimit, 2*r.Control.P99)
	}
	return limit
}

// judge says all that is wrong, given Envoy's memory limit in bytes.
func (r report) judge(limit int64) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if r.Ended != "" {
		fault("Envoy %s", r.Ended)
	}
	if r.Peak.total() > limit {
		fault("memory above the limit: %d MiB, and %d MiB of sockets' buffers", r.Peak.Own>>20, r.Peak.Sockets>>20)
	}
	for _, p := range []struct {
		when string
		period
	}{{"before", r.Before}, {"during", r.During}, {"at the end", r.Tail}, {"after", r.After}} {
		switch {
		case p.Requests == 0 && p.when != "at the end":
			fault("no request %s", p.when)
		case p.Failed > 0:
			fault("%d of %d requests failed %s: %s", p.Failed, p.Requests, p.when, p.Errors[0])
		case p.Past > 0 && r.Ended == "" && (p.when == "before" || p.when == "after"):
			fault("%d of %d requests went past Envoy %s", p.Past, p.Requests, p.when)
		}
	}
	if r.NotRecovered != nil {
		fault("not as before %s later: %v", recovery, r.NotRecovered)
	}
	if r.Nacks > 0 {
		fault("%d updates refused by Envoy", r.Nacks)
	}
	return faults
}

// judgeSpeed says where the victim was too slow. The tests leave that out: they also
// run on machines that are busy with something else.
func (r report) judgeSpeed() []string {
	var faults []string
	for _, p := range []struct {
		when          string
		before, after time.Duration
	}{
		{"during", r.Before.P99, r.During.P99},
		{"after", r.Before.P99, r.After.P99},
	} {
		if allowed := r.allowed(p.before); p.after > allowed {
			faults = append(faults, fmt.Sprintf("p99 %s %s, above %s", p.when, millis(p.after), millis(allowed)))
		}
	}
	return faults
}

// millis is a duration as people compare them.
func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
