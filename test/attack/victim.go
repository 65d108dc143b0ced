// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// client is a pod's ordinary load: 100 requests a second on kept connections, and 20
// a second on new ones.
type client struct{ kept, fresh *lab.Load }

func startClient(pod *lab.Pod) (client, error) {
	spec := echo.Spec{Protocol: echo.HTTP1, Target: victimIP + ":80", Rate: 100, Connections: 10, Timeout: 10 * time.Second}
	kept, err := pod.Load(spec)
	if err != nil {
		return client{}, err
	}
	spec.Rate, spec.Fresh = 20, true
	fresh, err := pod.Load(spec)
	if err != nil {
		_, stopped := kept.Stop()
		return client{}, errors.Join(err, stopped)
	}
	return client{kept, fresh}, nil
}

func (c client) stop() error {
	_, first := c.kept.Stop()
	_, second := c.fresh.Stop()
	return errors.Join(first, second)
}

// period is how a client fared in a period of time.
type period struct {
	Requests, Failed int
	// Past counts the answers that didn't pass Envoy.
	Past int
	// P50 and P99 are of all requests, Fresh99 is of those on new connections.
	P50, P99, Fresh99 time.Duration
	// Errors are some of them.
	Errors []string
}

// between is how the client fared with the requests that were due in a period.
func (c client) between(from, to time.Time) period {
	p := period{}
	kept, fresh := p.add(c.kept.Since(from), to), p.add(c.fresh.Since(from), to)
	_, p.Fresh99 = percentiles(fresh)
	p.P50, p.P99 = percentiles(append(kept, fresh...))
	return p
}

// add counts what was due until then, and returns how long each took.
func (p *period) add(records []echo.Record, to time.Time) (took []time.Duration) {
	for _, r := range records {
		if r.At.After(to) {
			continue
		}
		p.Requests++
		switch {
		case r.Error != "":
			p.Failed++
			if len(p.Errors) < 3 {
				p.Errors = append(p.Errors, fmt.Sprintf("%s after %s: %s", r.At.Format("05.000"), r.Took.Round(time.Millisecond), r.Error))
			}
		case !r.Relayed:
			p.Past++
		}
		// One that failed has taken its time, too.
		took = append(took, r.Took)
	}
	return took
}

// percentiles are the median and the p99; it sorts.
func percentiles(took []time.Duration) (p50, p99 time.Duration) {
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return took[len(took)/2], took[min(len(took)*99/100, len(took)-1)]
}
