// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
)

// randomAttackers is how many pods attack at random.
const randomAttackers = 6

// attackAtRandom makes random attacks in each mode in turn, several at once and on one
// Envoy, while tenants write random objects. No Envoy and no agent may end, and Envoy
// may refuse nothing.
func (c config) attackAtRandom(ctx context.Context) error {
	fmt.Printf("the seed is %d\n", c.seed)
	for _, mode := range c.modes {
		if err := c.attackModeAtRandom(ctx, mode, c.random/time.Duration(len(c.modes))); err != nil {
			return fmt.Errorf("in mode %s, seed %d: %w", mode, c.seed, err)
		}
	}
	return nil
}

func (c config) attackModeAtRandom(ctx context.Context, mode lab.Mode, length time.Duration) (err error) {
	n, err := newNode(ctx, c, mode, randomAttackers)
	if n.Lab != nil {
		defer func() { err = errors.Join(err, n.Close()) }()
	}
	if err != nil {
		return err
	}
	if err := n.start(ctx); err != nil {
		return err
	}
	victim, err := startClient(n.victim)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, victim.stop()) }()
	memory := n.watchMemory(ctx)
	defer memory.end()
	r := rand.New(rand.NewPCG(c.seed, 0))
	start, lost := time.Now(), 0
	for round := 1; time.Since(start) < length; round++ {
		begin := time.Now()
		if err := n.writeAtRandom(r); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		what, err := n.attackTogether(ctx, r)
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		p := victim.between(begin, time.Now())
		lost += p.Failed
		fmt.Printf("%s mode, %s, round %d: %s: victim's p50/p99/new p99 %s ms, %d of %d failed, %d past Envoy\n",
			mode, time.Since(start).Round(time.Second), round, what, pair(p), p.Failed, p.Requests, p.Past)
		if err := n.unharmed(ctx); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	peak := memory.end()
	fmt.Printf("%s mode: Envoy had %d MiB at most and %d MiB of sockets' buffers; %d requests of the victim failed\n",
		mode, peak.Own>>20, peak.Sockets>>20, lost)
	return nil
}

// attackTogether makes up to three attacks at once, by pods of their own, and says
// which.
func (n *node) attackTogether(ctx context.Context, r *rand.Rand) (what string, err error) {
	var known []attack
	for _, a := range attacks() {
		if a.harms.why == "" && !a.vanish && !a.manyPorts {
			known = append(known, a)
		}
	}
	pods := r.Perm(len(n.evil))
	length := time.Duration(2+r.IntN(7)) * time.Second
	var all []*assault
	for len(all) < 3 && len(pods) > 0 {
		a := known[r.IntN(len(known))]
		if r.IntN(3) == 0 {
			// What is meant for one class may harm in another.
			ports := targetPorts()
			a.port = uint16(ports[r.IntN(len(ports))].Port)
		}
		some := 1 + r.IntN(len(pods))
		var by []*lab.Pod
		for _, i := range pods[:some] {
			by = append(by, n.evil[i])
		}
		pods = pods[some:]
		one, err := n.launch(a, length, by)
		if err != nil {
			return what, err
		}
		all = append(all, one)
		what += fmt.Sprintf("%s on port %d by %d, ", a.Name, a.port, some)
	}
	limit, cancel := context.WithTimeout(ctx, length+time.Minute)
	defer cancel()
	for _, one := range all {
		if _, err := one.end(limit); err != nil {
			return what, fmt.Errorf("%s: %w", what, err)
		}
	}
	return what + length.String(), nil
}

// unharmed returns an error unless Envoy and the agent run and agree.
func (n *node) unharmed(ctx context.Context) error {
	select {
	case <-n.envoy.Ended():
		return errors.New("Envoy was " + n.howEnded())
	case <-n.agent.Ended():
		return fmt.Errorf("the agent has ended:\n%s", n.agent.Output())
	default:
	}
	limit, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	// Status asks the agent, which may be busy with what was written.
	return lab.Until(limit, "the agent's status", func() error {
		status, err := n.node.Status(limit)
		if err == nil && status.Envoy.Nacks > 0 {
			text, _ := n.node.StatusText(limit)
			return fmt.Errorf("%d updates were refused by Envoy:\n%s", status.Envoy.Nacks, text)
		}
		return err
	})
}
