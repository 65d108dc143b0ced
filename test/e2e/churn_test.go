// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// churnEnv makes the churn longer and larger than `make e2e` has it: the number
// of pods alive at a time and the length, like "200 10m".
const churnEnv = "NODEVOY_CHURN"

// TestChurn makes and deletes pods at random, each with calls from its first to
// its last moment: none fails while its pod lives, and afterwards nothing is
// left of the pods that went.
func TestChurn(t *testing.T) {
	alive, length := 20, 30*time.Second
	if text := os.Getenv(churnEnv); text != "" {
		var duration string
		if _, err := fmt.Sscan(text, &alive, &duration); err != nil || alive < 1 || alive > 220 {
			t.Fatalf("%s=%q: want the number of pods, 1 to 220, and a duration, like 200 10m: %v", churnEnv, text, err)
		}
		length = must(time.ParseDuration(duration))(t)
	}
	each(t, []variant{podRouted()}, func(t *testing.T, w *fixture) {
		w.start(t)
		w.checkCaller(t, w.client)
		before := w.held(t)
		loads := w.startTraffic(t)
		c := &churn{fixture: w, alive: alive, random: rand.New(rand.NewPCG(1, 2))}
		c.run(t, length)
		c.end(t)
		for what, r := range loads.stop(t) {
			w.allThroughEnvoy(t, r)
			t.Logf("%s: %d requests, max %s", what, r.Requests, r.Max)
		}
		w.untilNothingOfOthers(t)
		check(t, waitFor(t, goneLimit, func() error { return before.leaked(w.held(t)) }))
		w.checkCaller(t, w.client)
		w.untilSettled(t)
	})
}

// held is what agent and Envoy hold, and the mounts that they see.
type held struct {
	agent, envoy       lab.Held
	mounts             int
	agentMiB, envoyMiB int64
}

func (w *fixture) held(t *testing.T) held {
	t.Helper()
	return held{
		agent: must(w.agent.Held())(t), envoy: must(w.envoy.Held())(t), mounts: must(w.agent.NamespaceMounts())(t),
		agentMiB: must(w.agent.RSS())(t) >> 20, envoyMiB: must(w.envoy.RSS())(t) >> 20,
	}
}

// leaked returns an error when more is held now than before. Connections come
// and go: a few sockets more are none of ours.
func (h held) leaked(now held) error {
	const someSockets = 30
	switch {
	case now.mounts > h.mounts:
		return fmt.Errorf("there are %d mounts of namespaces, %d before", now.mounts, h.mounts)
	case now.agent.Namespaces > h.agent.Namespaces || now.envoy.Namespaces > h.envoy.Namespaces:
		return fmt.Errorf("namespaces are held: %+v, before %+v", now, h)
	case now.agent.All > h.agent.All+someSockets || now.envoy.All > h.envoy.All+someSockets:
		return fmt.Errorf("descriptors are held: %+v, before %+v", now, h)
	}
	return nil
}

// slowLimit is from when on a request is named in the log as slow.
const slowLimit = 500 * time.Millisecond

// churn is pods that come and go.
type churn struct {
	*fixture
	alive  int
	random *rand.Rand

	made   int
	living []*caller
	// leaving are pods without a network whose calls have not ended yet.
	leaving []*caller

	mu       sync.Mutex
	requests int
	// opened are requests with a connection of their own.
	opened, openedByEnvoy int
	slowest               time.Duration
	failed, slow          []string
	told                  int // of those that failed
}

// caller is a pod with calls under way.
type caller struct {
	pod  *lab.Pod
	made time.Time
	stop context.CancelFunc
	done chan struct{}

	mu sync.Mutex
	// doomed is when the pod began to go; what ends later may fail.
	doomed time.Time
}

// run changes pods at random until the time is up.
func (c *churn) run(t *testing.T, length time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	// All pods are replaced about once a minute, but at least two a second come
	// and go.
	tick := time.NewTicker(min(500*time.Millisecond, time.Minute/time.Duration(2*c.alive)))
	defer tick.Stop()
	for len(c.living) < c.alive {
		c.add(t)
	}
	check(t, c.PublishObjects())
	report := time.NewTicker(30 * time.Second)
	defer report.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-report.C:
			c.log(t)
		case <-tick.C:
			c.step(t)
		}
	}
}

// step makes a pod or two, or deletes some; in each case objects and network
// namespaces don't change at the same time.
func (c *churn) step(t *testing.T) {
	t.Helper()
	for range 1 + c.random.IntN(2) {
		if c.random.IntN(2*c.alive) < len(c.living) && len(c.living) > 0 {
			c.remove(t)
		} else {
			c.add(t)
		}
	}
	c.bury(t)
	check(t, c.PublishObjects())
}

// add makes a pod that calls at once and goes on.
func (c *churn) add(t *testing.T) {
	t.Helper()
	specs := []echo.Spec{
		{Protocol: echo.HTTP1, Target: web4 + ":80", Fresh: true},
		{Protocol: echo.HTTP1, Target: web6 + ":80"},
		{Protocol: echo.TCP, Target: web4 + ":7000", Fresh: true},
		{Protocol: echo.GRPC, Target: web4 + ":9090"},
	}
	spec := specs[c.made%len(specs)]
	// A few hundred a second are what two cores have left beside the changes.
	spec.Rate, spec.Timeout = min(4, 400/float64(c.alive)), 5*time.Second
	pod := must(c.node.AddPod("shop", fmt.Sprintf("churn-%d", c.made), nil))(t)
	c.made++
	ctx, cancel := context.WithCancel(t.Context())
	one := &caller{pod: pod, made: time.Now(), stop: cancel, done: make(chan struct{})}
	spec.Each = func(r echo.Record) { c.count(one, spec, r) }
	go func() {
		defer close(one.done)
		// What goes wrong is on record.
		_, _ = pod.CallHere(ctx, spec)
	}()
	c.living = append(c.living, one)
}

// remove begins the end of a living pod, in one of the orders that occur: calls
// first, or network first; the object goes last, or at once.
func (c *churn) remove(t *testing.T) {
	t.Helper()
	i := c.random.IntN(len(c.living))
	one := c.living[i]
	c.living = append(c.living[:i], c.living[i+1:]...)
	one.mu.Lock()
	one.doomed = time.Now()
	one.mu.Unlock()
	if c.random.IntN(2) == 0 {
		check(t, one.pod.Unplug())
	}
	if c.random.IntN(2) == 0 {
		c.Objects().RemovePod(one.pod)
	}
	one.stop()
	c.leaving = append(c.leaving, one)
}

// bury removes the pods whose calls have ended.
func (c *churn) bury(t *testing.T) {
	t.Helper()
	var waiting []*caller
	for _, one := range c.leaving {
		select {
		case <-one.done:
			check(t, one.pod.Remove())
		default:
			waiting = append(waiting, one)
		}
	}
	c.leaving = waiting
}

// end deletes every pod.
func (c *churn) end(t *testing.T) {
	t.Helper()
	c.log(t)
	for len(c.living) > 0 {
		c.remove(t)
	}
	check(t, waitFor(t, time.Minute, func() error {
		c.bury(t)
		if len(c.leaving) > 0 {
			return fmt.Errorf("calls of %d pods go on", len(c.leaving))
		}
		return nil
	}))
	check(t, c.PublishObjects())
	if len(c.failed) > 0 {
		t.Errorf("%d of %d requests of living pods failed:\n%s", len(c.failed), c.requests, strings.Join(c.failed[:min(20, len(c.failed))], "\n"))
	}
	// The others were made before their pods were redirected, and go on so.
	if c.openedByEnvoy < c.opened*3/4 {
		t.Errorf("only %d of %d new connections went through Envoy", c.openedByEnvoy, c.opened)
	}
}

// count takes in a request of a pod.
func (c *churn) count(one *caller, spec echo.Spec, r echo.Record) {
	one.mu.Lock()
	doomed := one.doomed
	one.mu.Unlock()
	if !doomed.IsZero() && r.At.Add(r.Took).After(doomed) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	c.slowest = max(c.slowest, r.Took)
	if spec.Fresh {
		c.opened++
		if r.Relayed {
			c.openedByEnvoy++
		}
	}
	told := fmt.Sprintf("%s, %s, pod %s, %s old, after %s, by Envoy %v: %s",
		r.At.Format("15:04:05.000"), spec.Protocol, one.pod.Name, r.At.Sub(one.made), r.Took, r.Relayed, r.Error)
	switch {
	case r.Error != "":
		c.failed = append(c.failed, told)
	case r.Took > slowLimit:
		c.slow = append(c.slow, told)
	}
}

// log says how things are.
func (c *churn) log(t *testing.T) {
	t.Helper()
	now := c.held(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Logf("%d pods made, %d alive; %d requests, %d failed, %d of %d new connections by Envoy, slowest %s; %+v",
		c.made, len(c.living), c.requests, len(c.failed), c.openedByEnvoy, c.opened, c.slowest.Round(time.Millisecond), now)
	if len(c.slow) > 0 {
		t.Logf("%d slow since the last time, among them:\n%s", len(c.slow), strings.Join(c.slow[:min(20, len(c.slow))], "\n"))
	}
	c.slow = nil
	if told := len(c.failed); told > c.told {
		t.Logf("failed:\n%s", strings.Join(c.failed[c.told:min(told, c.told+20)], "\n"))
		c.told = told
	}
}
