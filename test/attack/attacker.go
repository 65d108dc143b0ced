// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// attackerCommand is the first argument that makes this program an attacker.
const attackerCommand = "attacker"

// order is what an attacker is told, as JSON.
type order struct {
	Attack string
	// Service and Port are those of the attackers' own Service.
	Service netip.Addr
	Port    uint16
	// For is how long to attack.
	For time.Duration
}

// sent is what an attacker has done.
type sent struct {
	// Connections counts those made, Bytes what was written to them as far as the
	// attack writes by itself, Requests the requests or frames.
	Connections, Bytes, Requests int64
	// Refused counts errors, of which Last is one.
	Refused int64
	Last    string `json:",omitempty"`
}

func (s *sent) add(o sent) {
	s.Connections += o.Connections
	s.Bytes += o.Bytes
	s.Requests += o.Requests
	s.Refused += o.Refused
	if o.Last != "" {
		s.Last = o.Last
	}
}

// String is in short what was done.
func (s sent) String() string {
	text := fmt.Sprintf("%d connections, %d requests, %d MB sent", s.Connections, s.Requests, s.Bytes>>20)
	if s.Refused > 0 {
		text += fmt.Sprintf(", refused %d times: %.80s", s.Refused, s.Last)
	}
	return text
}

// attacker is the process that attacks.
type attacker struct {
	order

	connections, bytes, requests, refused atomic.Int64
	mu                                    sync.Mutex
	last                                  string
}

// attackerMain attacks as it is told and prints what it has sent.
func attackerMain(text string) error {
	a := &attacker{}
	if err := json.Unmarshal([]byte(text), &a.order); err != nil {
		return fmt.Errorf("parse order: %w", err)
	}
	todo, err := find(a.Attack)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), a.For)
	defer cancel()
	if err := todo.run(ctx, a); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: %w", a.Attack, err)
	}
	// One that has no more to do stays, with the connections that it has.
	<-ctx.Done()
	return json.NewEncoder(os.Stdout).Encode(sent{
		Connections: a.connections.Load(), Bytes: a.bytes.Load(), Requests: a.requests.Load(),
		Refused: a.refused.Load(), Last: a.last,
	})
}

// target is where the Service's port is.
func (a *attacker) target() string { return netip.AddrPortFrom(a.Service, a.Port).String() }

// dial makes a connection to the Service that ends with ctx.
func (a *attacker) dial(ctx context.Context) (*counted, error) { return a.dialPort(ctx, a.Port) }

func (a *attacker) dialPort(ctx context.Context, port uint16) (*counted, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(a.Service, port).String())
	if err != nil {
		return nil, err
	}
	a.connections.Add(1)
	context.AfterFunc(ctx, func() { c.Close() })
	return &counted{Conn: c, bytes: &a.bytes}, nil
}

// counted is a connection whose written bytes are counted.
type counted struct {
	net.Conn
	bytes *atomic.Int64
}

// Write writes and counts.
func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.bytes.Add(int64(n))
	return n, err
}

// each does something n times at once, each again and again until ctx ends. An
// error is counted as a refusal, after which the attacker waits: it is to attack, not
// to spend the machine's processors on being refused.
func (a *attacker) each(ctx context.Context, n int, do func(ctx context.Context) error) error {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, time.Second) {
				err := a.once(ctx, do)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					a.refuse(err)
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	all.Wait()
	return ctx.Err()
}

// firstPause is how long an attacker waits after it was refused for the first time.
const firstPause = 20 * time.Millisecond

// once gives what is done a context of its own, so that its connections end with it.
func (a *attacker) once(ctx context.Context, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return do(ctx)
}

func (a *attacker) refuse(err error) {
	a.refused.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = err.Error()
}

// hold keeps a connection until the other side ends it, or ctx does. What comes
// is dropped.
func hold(ctx context.Context, c io.Reader) error {
	if _, err := io.Copy(io.Discard, c); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.New("the connection was ended")
}

// endless is a body of zeros without an end.
type endless struct{ bytes *atomic.Int64 }

// Read gives zeros.
func (e endless) Read(b []byte) (int, error) {
	clear(b)
	e.bytes.Add(int64(len(b)))
	return len(b), nil
}
