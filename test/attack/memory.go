// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// gauge reads Envoy's memory several times a second and keeps the highest.
type gauge struct {
	peak memory
	stop context.CancelFunc
	done chan struct{}
}

// memory is what Envoy has, in bytes: what counts to the limit of its control
// group, but for files, which the kernel takes back when it needs to.
type memory struct {
	// Own is its resident memory, Sockets what the kernel holds for its sockets: 0
	// without a control group, which is needed to tell.
	Own, Sockets int64
}

func (m memory) total() int64 { return m.Own + m.Sockets }

// memory reads what the running Envoy has.
func (n *node) memory() (memory, error) {
	if n.group.there() {
		own, sockets, err := n.group.used()
		return memory{own, sockets}, err
	}
	rss, err := n.envoy.RSS()
	return memory{Own: rss}, err
}

// watchMemory starts a gauge. Without a control group it also does what the kernel
// would do there: it kills an Envoy that is above the limit.
func (n *node) watchMemory(ctx context.Context) *gauge {
	ctx, cancel := context.WithCancel(ctx)
	g := &gauge{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(g.done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			m, err := n.memory()
			if err != nil {
				// It has ended.
				continue
			}
			if m.total() > g.peak.total() {
				g.peak = m
			}
			if !n.group.there() && m.Own > n.config.limit {
				_ = n.envoy.Kill()
			}
		}
	}()
	return g
}

func (g *gauge) end() memory {
	g.stop()
	<-g.done
	return g.peak
}

// state is what is to be as before once an attack is over.
type state struct {
	// RSS is its resident memory, with what is mapped from files; Sockets is as in
	// memory.
	RSS, Sockets int64
	// Allocated is what Envoy's memory allocator has given out and not got back.
	Allocated int64
	// Active counts Envoy's connections from pods.
	Active int64
}

func (s state) total() int64 { return s.RSS + s.Sockets }

// held is what somebody uses of that.
func (s state) held() int64 { return s.Allocated + s.Sockets }

// state reads it.
func (n *node) state(ctx context.Context) (s state, err error) {
	if s.RSS, err = n.envoy.RSS(); err != nil {
		return s, err
	}
	used, err := n.memory()
	if err != nil {
		return s, err
	}
	s.Sockets = used.Sockets
	text, err := n.envoy.Admin(ctx, "/memory")
	if err != nil {
		return s, err
	}
	var got struct{ Allocated string }
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		return s, fmt.Errorf("parse memory of Envoy: %w", err)
	}
	if s.Allocated, err = strconv.ParseInt(got.Allocated, 10, 64); err != nil {
		return s, fmt.Errorf("parse memory of Envoy: %w", err)
	}
	stats, err := n.envoy.Stats(ctx, `^listener\..*\.downstream_cx_active$`)
	for name, active := range stats {
		// Each worker has a gauge of its own besides.
		own := strings.HasPrefix(name, "listener.admin.") || strings.HasPrefix(name, "listener.health.")
		if !own && !strings.Contains(name, ".worker_") {
			s.Active += active
		}
	}
	return s, err
}
