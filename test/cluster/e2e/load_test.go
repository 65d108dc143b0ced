// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// What the load is: each node's client makes half of its requests on new
// connections, half on kept ones. A request is tried once.
const (
	wantedRate = 1000.0 // requests per second, of all clients together, at most
	leastRate  = 300.0  // below which a machine is too slow for these tests
	workers    = 16     // of each of the clients
	slowLimit  = 500 * time.Millisecond
)

// load is the clients of all nodes.
type load struct {
	clients []*client
}

// client is one process of calls.
type client struct {
	about string
	cmd   *exec.Cmd
	input io.Closer
	out   bytes.Buffer
	errs  bytes.Buffer
}

// startLoad starts calls from every node, until stopped.
func (c *cluster) startLoad(t *testing.T) *load {
	t.Helper()
	l := &load{}
	rate := c.rate / float64(2*len(nodes()))
	for _, node := range nodes() {
		from := c.bare(t, node)
		for _, fresh := range []bool{false, true} {
			one := c.startClient(t, from, echo.Spec{
				Protocol: echo.HTTP1, Rate: rate, Connections: workers, Fresh: fresh,
				Attached: true, Slow: slowLimit,
			})
			one.about = fmt.Sprintf("%s, new connections %v", node, fresh)
			l.clients = append(l.clients, one)
		}
	}
	return l
}

func (c *cluster) startClient(t *testing.T, from pod, spec echo.Spec) *client {
	t.Helper()
	name, args, err := from.command(spec)
	if err != nil {
		t.Fatal(err)
	}
	one := &client{cmd: c.command(name, args...)}
	one.cmd.Stdout, one.cmd.Stderr = &one.out, &one.errs
	if one.input, err = one.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := one.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return one
}

// totals are the results of all clients.
type totals struct {
	requests, failed, connections int
	rate                          float64
	p99, max, elapsed             time.Duration
}

func (s *totals) add(r echo.Result) {
	s.requests += r.Requests
	s.failed += r.Failed
	s.connections += r.Connections
	s.rate += r.PerSecond
	s.p99, s.max, s.elapsed = max(s.p99, r.P99), max(s.max, r.Max), max(s.elapsed, r.Elapsed)
}

// stop ends the calls and adds them up. Of the requests that failed or were slow
// the first few of each client are in the test's log.
func (l *load) stop(t *testing.T, during string) totals {
	t.Helper()
	var sum totals
	for _, one := range l.clients {
		one.input.Close()
	}
	for _, one := range l.clients {
		if err := one.cmd.Wait(); err != nil {
			t.Errorf("%s: %s: calls ended early: %v: %s", during, one.about, err, one.errs.String())
			continue
		}
		r, err := parseResult(one.out.String())
		if err != nil {
			t.Errorf("%s: %s: %v", during, one.about, err)
			continue
		}
		sum.add(r)
		for text, n := range r.Errors {
			t.Logf("%s: %s: %d times: %s", during, one.about, n, text)
		}
		for _, o := range r.Outliers[:min(3, len(r.Outliers))] {
			t.Logf("%s: %s: %s took %s, new connection %v, pod %s, error %q",
				during, one.about, o.At.Format("15:04:05.000"), o.Took.Round(time.Millisecond), o.Fresh, o.Pod, o.Error)
		}
	}
	t.Logf("%s: %d requests at %.0f/s, %d new connections, %d failed, p99 %s, slowest %s", during,
		sum.requests, sum.rate, sum.connections, sum.failed, sum.p99.Round(time.Millisecond/10), sum.max.Round(time.Millisecond))
	return sum
}

// under runs something while the load goes on.
func (c *cluster) under(t *testing.T, what string, something func()) totals {
	t.Helper()
	l := c.startLoad(t)
	ended := false
	// A fatal error inside leaves no load behind.
	defer func() {
		if !ended {
			l.stop(t, what+", broken off")
		}
	}()
	something()
	ended = true
	sum := l.stop(t, what)
	if sum.failed > 0 {
		t.Errorf("%s: %d of %d requests failed", what, sum.failed, sum.requests)
	}
	return sum
}

// unnoticed wants something done under load not to be noticed: no request fails,
// and none is slower than promised. What was slow is done again, a few times, under
// less load each time: where requests waited for a CPU they now wait less, while a
// fault of the hand-over shows at any rate. It is no fault of nodevoy's where others
// took the machine's CPUs.
func (c *cluster) unnoticed(t *testing.T, what string, something func(attempt int)) {
	t.Helper()
	const attempts = 3
	disturbed := false
	for attempt := range attempts {
		before := cpuNow(t)
		sum := c.under(t, what, func() { something(attempt) })
		if sum.rate < 0.95*c.rate {
			t.Logf("this machine made %.0f requests per second of the %.0f wanted", sum.rate, c.rate)
		}
		if sum.max <= slowLimit || t.Failed() {
			return
		}
		others := before.others(cpuNow(t))
		t.Logf("%s: the slowest request took %s, more than %s; others used %.0f %% of the machine",
			what, sum.max, slowLimit, 100*others)
		disturbed = disturbed || others > othersLimit
		c.rate = max(leastRate, 0.75*c.rate)
	}
	if disturbed {
		t.Logf("%s: this machine had too much else to do to tell how slow it gets", what)
		return
	}
	t.Errorf("%s: more than %s, %d times in a row", what, slowLimit, attempts)
}
