// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// sample is one measurement.
type sample struct {
	result                 echo.Result
	client, servers, envoy time.Duration
	instructions           uint64
}

// measure builds the lab, makes all measurements and removes it.
func measure(ctx context.Context, cfg config) (rows []*row, err error) {
	if err := lab.Installed(); err != nil {
		return nil, err
	}
	if cfg.instructions {
		remove, err := countInstructions()
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, remove()) }()
	}
	b, err := build(ctx)
	if b.Lab != nil {
		defer func() { err = errors.Join(err, b.Close()) }()
	}
	if err != nil {
		return nil, err
	}
	if cfg.bulk > 0 {
		return nil, b.measureBulk(ctx, cfg)
	}
	rows = cfg.rows()
	for round := range cfg.rounds {
		for _, r := range rows {
			// Taking turns, all paths meet the same disturbances. In every four
			// rounds each comes first once, and once after each of the others.
			for _, i := range [sides]int{0, 1, 3, 2} {
				side := (i + round) % sides
				p := b.paths()[side]
				got, err := b.sample(ctx, p, r.spec(cfg), cfg.instructions)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", r.Name, p.name, err)
				}
				r.samples[side] = append(r.samples[side], got)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d done\n", round+1, cfg.rounds)
	}
	for _, r := range rows {
		r.sum()
	}
	return rows, nil
}

// sample runs a spec once, after a short warm-up, and takes the processor time
// of everyone involved. A failed request, or one on the wrong path, is an error.
func (b *fixture) sample(ctx context.Context, p *path, spec echo.Spec, instructions bool) (sample, error) {
	warm := spec
	warm.Duration = 100 * time.Millisecond
	if _, err := p.from.Call(ctx, warm); err != nil {
		return sample{}, err
	}
	var s sample
	if instructions {
		return p.countInstructions(ctx, spec)
	}
	serversBefore, envoyBefore, err := b.cpu(p)
	if err != nil {
		return s, err
	}
	if s.result, s.client, err = p.from.CallCPU(ctx, spec); err != nil {
		return s, err
	}
	if s.servers, s.envoy, err = b.cpu(p); err != nil {
		return s, err
	}
	s.servers -= serversBefore
	s.envoy -= envoyBefore
	return s, p.check(s.result)
}

// check wants every request answered, by the path's way, with the address that
// backends see on it.
func (p *path) check(r echo.Result) error {
	if r.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed: %v", r.Failed, r.Requests, r.Errors)
	}
	relayed, own := 0, 0
	if p.envoy != nil {
		relayed = r.Requests
	}
	if p.ownAddress {
		own = r.Requests
	}
	if r.Relayed != relayed || r.Peers[p.from.IPs[0].String()] != own {
		return fmt.Errorf("of %d requests %d went through Envoy, want %d, and came from %v", r.Requests, r.Relayed, relayed, r.Peers)
	}
	return nil
}

// cpu is the processor time used so far by the servers, and by the path's Envoy.
func (b *fixture) cpu(p *path) (servers, envoy time.Duration, err error) {
	for _, pod := range b.web {
		used, err := pod.Server().CPU()
		if err != nil {
			return 0, 0, err
		}
		servers += used
	}
	if p.envoy != nil {
		envoy, err = p.envoy.CPU()
	}
	return servers, envoy, err
}
