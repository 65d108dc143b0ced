// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/check"
)

const (
	// checkLimit bounds the check of a node that has an agent.
	checkLimit = 40 * time.Second
	// maxSkew is how far apart the clocks of two nodes may be.
	maxSkew = 2 * time.Second
)

// check has every node examined: in the container of its agent, or else in a pod that is
// made for it.
func (s *sites) check(ctx context.Context) ([]ask.Result[check.Report], error) {
	c, err := s.open()
	if err != nil {
		return nil, err
	}
	nodes, err := c.someNodes(ctx)
	if err != nil {
		return nil, err
	}
	results := make([]ask.Result[check.Report], len(nodes))
	var bare []string
	clocks := clocks{}
	var running sync.WaitGroup
	for i, n := range nodes {
		if n.agent == nil {
			bare = append(bare, n.name)
			continue
		}
		running.Go(func() { results[i] = c.examine(ctx, n, &clocks) })
	}
	of := map[string]ask.Result[check.Report]{}
	if len(bare) > 0 {
		of = s.checks.run(ctx, c, nodes, bare)
	}
	running.Wait()
	for i, n := range nodes {
		if n.agent == nil {
			results[i] = of[n.name]
		}
	}
	clocks.compare(results)
	return results, nil
}

// examine runs the check in the container of a node's agent.
func (c *cluster) examine(ctx context.Context, n node, clocks *clocks) ask.Result[check.Report] {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	if err := whyNot(n.agent); err != nil {
		return noReport(n.name, err)
	}
	var out, errs bytes.Buffer
	began := time.Now()
	err := c.exec(ctx, n.agent, []string{"nodevoy", "check", "-o", "json", "--node-name", n.name}, streams{out: &out, err: &errs})
	took := time.Since(began)
	report, unreadable := readReport(out.Bytes())
	if unreadable != nil {
		return noReport(n.name, failure(errors.Join(err, unreadable), errs.String(), n.agent))
	}
	clocks.add(n.name, report.At.Sub(began), took)
	return ask.Result[check.Report]{Node: n.name, State: ask.Answered, Answer: &report}
}

func noReport(node string, err error) ask.Result[check.Report] {
	return ask.Result[check.Report]{Node: node, State: ask.NoAnswer, Error: err.Error(), Err: err}
}

// readReport reads a report, which a program prints whatever its exit code is.
func readReport(text []byte) (check.Report, error) {
	var r check.Report
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read the report: %w", err)
	}
	return r, nil
}

// clocks compares those of nodes with each other.
type clocks struct {
	mu sync.Mutex
	// ahead is how far each was ahead of this machine's, at least and at most.
	ahead map[string][2]time.Duration
}

// add notes what a node's clock said in an answer that took so long.
func (c *clocks) add(node string, ahead, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ahead == nil {
		c.ahead = map[string][2]time.Duration{}
	}
	c.ahead[node] = [2]time.Duration{ahead - took, ahead}
}

// compare adds a warning to the report of each node whose clock is apart from that of
// most. What can be explained by how long answers took is not.
func (c *clocks) compare(results []ask.Result[check.Report]) {
	var middles []time.Duration
	for _, a := range c.ahead {
		middles = append(middles, (a[0]+a[1])/2)
	}
	if len(middles) < 2 {
		return
	}
	slices.Sort(middles)
	median := middles[(len(middles)-1)/2]
	for _, r := range results {
		a, is := c.ahead[r.Node]
		if !is || r.Answer == nil {
			continue
		}
		apart := max(a[0]-median, median-a[1])
		if apart > maxSkew {
			r.Answer.Lines = append(r.Answer.Lines, check.Line{
				Level: check.Warning, Topic: "clock",
				Text: fmt.Sprintf("at least %s apart from that of other nodes", apart.Round(100*time.Millisecond)),
				Do:   "synchronize the nodes' clocks: the order of flows of several nodes depends on it",
			})
		}
	}
}
