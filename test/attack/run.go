// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
)

// recovery is how long after an attack everything is to be as before.
const recovery = 10 * time.Second

// report is what one attack did.
type report struct {
	Attack    attack
	Mode      lab.Mode
	Attackers int
	Sent      sent
	// Before, During and After are of the victim; Control, meanwhile, is of a pod
	// that does the same without Envoy.
	Before, During, After, Control period
	// Tail are the victim's requests between the attack and After.
	Tail period
	// Peak is Envoy's memory at most, Start and End what it was before and after.
	Peak       memory
	Start, End state
	// Ended says how Envoy ended, if it did.
	Ended string
	// Recovered is how long it took until all was as before; NotRecovered is what
	// was not, recovery later.
	Recovered    time.Duration
	NotRecovered error
	// Nacks counts the updates that Envoy refused.
	Nacks int
	// Faults are what the verdict is made of, and Slow where the victim's calls took
	// longer than they may.
	Faults, Slow []string
}

// attack makes one attack, in a lab of its own, and judges it. An error is one of the
// suite itself.
func (c config) attack(ctx context.Context, a attack, mode lab.Mode, attackers int) (r report, err error) {
	r = report{Attack: a, Mode: mode, Attackers: attackers}
	c.connections = cmp.Or(a.connections, c.connections)
	n, err := newNode(ctx, c, mode, attackers)
	if n.Lab != nil {
		defer func() { err = errors.Join(err, n.Close()) }()
	}
	if err != nil {
		return r, err
	}
	if a.manyPorts {
		n.setManyPorts()
		if err := n.Publish(ctx); err != nil {
			return r, err
		}
	}
	if err := n.start(ctx); err != nil {
		return r, err
	}
	victim, err := startClient(n.victim)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, victim.stop()) }()
	control, err := startClient(n.control)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, control.stop()) }()
	if err := n.observe(ctx, &r, victim, control); err != nil {
		return r, err
	}
	r.Faults = r.judge(c.limit)
	if !c.short {
		r.Slow = r.judgeSpeed()
	}
	return r, nil
}

// observe attacks and takes down what happens.
func (n *node) observe(ctx context.Context, r *report, victim, control client) error {
	// The first requests load the Service.
	if err := wait(ctx, time.Second); err != nil {
		return err
	}
	begin := time.Now()
	if err := wait(ctx, n.config.before); err != nil {
		return err
	}
	var err error
	if r.Start, err = n.state(ctx); err != nil {
		return fmt.Errorf("before the attack: %w", err)
	}
	r.Before = victim.between(begin, time.Now())
	memory := n.watchMemory(ctx)
	start := time.Now()
	assault, err := n.launch(r.Attack, n.config.length, n.evil)
	if err != nil {
		memory.end()
		return err
	}
	if r.Attack.vanish {
		err = errors.Join(wait(ctx, n.config.length/2), n.vanish(assault))
	} else {
		limit, cancel := context.WithTimeout(ctx, n.config.length+20*time.Second)
		r.Sent, err = assault.end(limit)
		cancel()
	}
	if r.Attack.manyPorts {
		n.Objects().DeleteService("evil", "many")
		err = errors.Join(err, n.PublishObjects())
	}
	over := time.Now()
	if err != nil {
		memory.end()
		return err
	}
	recovered := n.recover(ctx, r, over)
	// The victim's requests that were due in the attack have ended by now, or time
	// out within the next.
	quiet := time.Now()
	err = errors.Join(recovered, wait(ctx, n.config.after))
	r.Peak = memory.end()
	r.During, r.Control = victim.between(start, over), control.between(start, over)
	r.Tail, r.After = victim.between(over, quiet), victim.between(quiet, time.Now())
	return err
}

// recover waits until all is as before the attack, for as long as that may take. Its
// error is that of the suite.
func (n *node) recover(ctx context.Context, r *report, over time.Time) error {
	limit, cancel := context.WithDeadline(ctx, over.Add(recovery))
	defer cancel()
	for {
		// What was found last is more than that it took too long.
		if err := n.asBefore(limit, r); limit.Err() == nil || r.NotRecovered == nil {
			r.NotRecovered = err
		}
		if r.NotRecovered == nil || limit.Err() != nil {
			break
		}
		select {
		case <-n.envoy.Ended():
			cancel()
		case <-time.After(200 * time.Millisecond):
		case <-limit.Done():
		}
	}
	r.Recovered = time.Since(over)
	select {
	case <-n.envoy.Ended():
		r.Ended = n.howEnded()
		r.NotRecovered = nil
		return nil
	default:
	}
	status, err := n.node.Status(ctx)
	r.Nacks = status.Envoy.Nacks
	return err
}

// asBefore returns an error that says what is not as it was.
func (n *node) asBefore(ctx context.Context, r *report) error {
	if err := n.victim.Redirected(ctx); err != nil {
		return err
	}
	now, err := n.state(ctx)
	if err != nil {
		return err
	}
	r.End = now
	most := r.Start
	if r.Attack.lingers {
		left := n.config.connections * int64(r.Attackers)
		most.Active += left
		most.Sockets += left * lingering
	}
	if now.Active > most.Active+activeSlack {
		return fmt.Errorf("%d connections are active, %d before", now.Active, r.Start.Active)
	}
	// What is resident is more: the allocator keeps what is free, to give it out again,
	// for about five minutes.
	if now.held() > most.held()+r.Start.total()/5 {
		return fmt.Errorf("%d MiB are in use and %d MiB in sockets' buffers, %d and %d before",
			now.Allocated>>20, now.Sockets>>20, r.Start.Allocated>>20, r.Start.Sockets>>20)
	}
	return nil
}

// lingering is how much a connection may hold, in bytes, that its client has left:
// Envoy's buffers of both directions, and those of two sockets.
const lingering = 1 << 20

// activeSlack is how many connections more than before may be active: the victim
// makes new ones all the time.
const activeSlack = 10

// howEnded says why Envoy has ended.
func (n *node) howEnded() string {
	if n.group.there() {
		if killed, err := n.group.killed(); err == nil && killed {
			return "killed by the kernel, out of memory"
		}
	}
	return "ended: " + n.envoy.LogEnd(3)
}

func wait(ctx context.Context, length time.Duration) error {
	select {
	case <-time.After(length):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
