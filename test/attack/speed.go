// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// speedAttacks do what Envoy is there for, as fast as they can.
func speedAttacks() []attack {
	busy := func(connections int) attack {
		return attack{
			Name: fmt.Sprintf("12 busy-%d", connections), What: fmt.Sprintf("%d busy kept-alive connections", connections),
			port: httpEcho, run: call(echo.Spec{Protocol: echo.HTTP1, Connections: connections}),
		}
	}
	limited := busy(1_000)
	limited.Name, limited.What, limited.connections = "12 busy-limited", "1,000 busy kept-alive connections, where 64 of a pod are redirected", 64
	return []attack{
		busy(16), busy(256), busy(1_000), limited,
		{
			Name: "12 new", What: "as many new connections a second as possible",
			port: httpEcho, run: call(echo.Spec{Protocol: echo.HTTP1, Connections: 64, Fresh: true}),
		},
		{
			Name: "12 busy-large", What: "256 busy kept-alive connections with answers of 64 KiB",
			port: httpEcho, run: call(echo.Spec{Protocol: echo.HTTP1, Connections: 256, Size: 64 << 10}),
		},
	}
}

// call makes calls of a spec.
func call(spec echo.Spec) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		spec.Target, spec.Duration = a.target(), a.For
		r, err := echo.Run(ctx, spec)
		a.connections.Add(int64(r.Connections))
		a.requests.Add(int64(r.Requests))
		a.refused.Add(int64(r.Failed))
		for text := range r.Errors {
			a.mu.Lock()
			a.last = text
			a.mu.Unlock()
		}
		return errors.Join(err, ctx.Err())
	}
}
