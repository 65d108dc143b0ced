// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The protocols a client speaks.
const (
	HTTP10     = "http/1.0"
	HTTP1      = "http/1.1"
	H2C        = "h2c"
	GRPC       = "grpc"
	GRPCStream = "grpc-stream"
	TCP        = "tcp"
)

// Spec says what a client does. It ends after Requests requests or after
// Duration, whichever is given, or at SIGTERM.
type Spec struct {
	// Protocol is one of the constants above; Target is IP:port.
	Protocol string `json:"protocol"`
	Target   string `json:"target"`
	// Requests is the number of requests to make; 0 for no limit.
	Requests int `json:"requests,omitempty"`
	// Duration is how long to go on; 0 for no limit.
	Duration time.Duration `json:"duration,omitempty"`
	// Rate is requests per second over all connections; 0 for as fast as answers come.
	Rate float64 `json:"rate,omitempty"`
	// Connections is the number of connections used at a time; 0 means 1.
	Connections int `json:"connections,omitempty"`
	// Fresh opens a new connection for every request.
	Fresh bool `json:"fresh,omitempty"`
	// Timeout limits one request, connecting included; 0 means 10 s.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Size is the number of padding bytes in an answer; Delay is how long the
	// server waits before it.
	Size  int           `json:"size,omitempty"`
	Delay time.Duration `json:"delay,omitempty"`
	// Trace prints every request as a Record, as it ends.
	Trace bool `json:"trace,omitempty"`
	// Attached ends the run when standard input ends, for clients that are
	// started where no signal reaches them.
	Attached bool `json:"attached,omitempty"`
	// Slow is how long a request may take before it is listed in the result;
	// 0 lists none but the failed ones.
	Slow time.Duration `json:"slow,omitempty"`
	// OwnPorts makes every connection from a port that no kernel would choose,
	// so that answers to connections that somebody else made on the client's
	// behalf can be told from its own: see Record.Relayed.
	OwnPorts bool `json:"ownPorts,omitempty"`

	// In, if set, runs each connect, for clients within a program that has many
	// network namespaces. Each, if set, is called with every request as it ends.
	In   func(func() error) error `json:"-"`
	Each func(Record)             `json:"-"`

	// ports is the last port bound to; nil without OwnPorts.
	ports *atomic.Uint32
}

func (s Spec) question() question { return question{size: s.Size, delay: s.Delay} }

// run is one execution of a Spec.
type run struct {
	spec   Spec
	start  time.Time
	taken  atomic.Int64
	mu     sync.Mutex
	result *tally
	trace  *json.Encoder
}

// Run does what the spec says until it is done or ctx ends; a request under
// way is finished first. It fails only on a bad spec.
func Run(ctx context.Context, spec Spec) (Result, error) {
	if spec.Timeout == 0 {
		spec.Timeout = timeout
	}
	spec.Connections = max(spec.Connections, 1)
	if spec.Requests == 0 && spec.Duration == 0 && ctx.Done() == nil {
		return Result{}, fmt.Errorf("spec for %s has no end", spec.Target)
	}
	if spec.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, spec.Duration)
		defer cancel()
	}
	if spec.OwnPorts {
		// Clients of one pod are to meet seldom.
		spec.ports = new(atomic.Uint32)
		spec.ports.Store(rand.Uint32N(ownCount))
	}
	r := &run{spec: spec, start: time.Now(), result: newTally(spec.Slow)}
	if spec.Trace {
		r.trace = json.NewEncoder(os.Stdout)
	}
	var workers sync.WaitGroup
	for range spec.Connections {
		workers.Go(func() { r.work(ctx) })
	}
	workers.Wait()
	return r.result.sum(time.Since(r.start)), nil
}

// next waits for this worker's turn and returns when its request was due; ok
// is false when there is no more to do.
func (r *run) next(ctx context.Context) (due time.Time, ok bool) {
	slot := r.taken.Add(1) - 1
	if r.spec.Requests > 0 && slot >= int64(r.spec.Requests) || ctx.Err() != nil {
		return time.Time{}, false
	}
	now := time.Now()
	if r.spec.Rate == 0 {
		return now, true
	}
	due = r.start.Add(time.Duration(float64(slot) / r.spec.Rate * float64(time.Second)))
	if !due.After(now) {
		// Every worker was busy when this request was due: the wait is part of
		// its latency, as it would be for a real caller.
		return due, true
	}
	timer := time.NewTimer(due.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return time.Now(), true
	case <-ctx.Done():
		return time.Time{}, false
	}
}

// work makes requests on one connection at a time, until there are no more.
func (r *run) work(ctx context.Context) {
	var c conn
	for {
		due, ok := r.next(ctx)
		if !ok {
			break
		}
		fresh := c == nil
		// Not derived from ctx: a request under way is finished.
		limit, cancel := context.WithTimeout(context.Background(), r.spec.Timeout)
		answer, err := Answer{}, error(nil)
		if fresh {
			c, err = dial(limit, r.spec)
		}
		if err == nil {
			answer, err = c.do(limit)
		}
		cancel()
		r.record(due, fresh, answer, err)
		if c != nil && (err != nil || r.spec.Fresh || !c.reusable()) {
			c.close()
			c = nil
		}
	}
	if c != nil {
		c.close()
	}
}

func (r *run) record(due time.Time, fresh bool, answer Answer, err error) {
	rec := Record{At: due, Took: time.Since(due), Fresh: fresh, Pod: answer.Pod, Peer: host(answer.Peer), Relayed: r.spec.relayed(answer.Peer)}
	if err != nil {
		rec.Error = err.Error()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.add(rec)
	if r.spec.Each != nil {
		r.spec.Each(rec)
	}
	if r.trace != nil {
		// A reader that went away also ends the process.
		_ = r.trace.Encode(rec)
	}
}

// runAndPrint runs a spec until it is done or SIGTERM comes, and prints the
// result as one line of JSON.
func runAndPrint(spec Spec) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if spec.Attached {
		go func() {
			// However it ends, nobody listens any more.
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop()
		}()
	}
	result, err := Run(ctx, spec)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(struct {
		Result Result `json:"result"`
	}{result})
}
