// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// connectionAttacks hold connections and clusters, and leave them behind.
func connectionAttacks() []attack {
	return []attack{
		{
			Name: "5 ports", What: "one Service of 7,000 ports, each called once",
			port: httpEcho, manyPorts: true, Short: true, run: callEachPort(manyPorts),
		},
		{
			Name: "6 idle", What: "20,000 idle connections",
			port: httpDeaf, Short: true, processes: 4, run: idle(5_000),
		},
		{
			Name: "6 tcp-idle", What: "20,000 idle connections to a plain TCP port",
			port: tcpDeaf, lingers: true, processes: 4, run: idle(5_000),
		},
		{
			Name: "slow-headers", What: "2,000 HTTP/1 connections that send a byte of a header field each half second",
			port: httpDeaf, run: slowly(2_000, 500*time.Millisecond),
		},
		{
			Name: "half-closed", What: "2,000 HTTP/1 connections with a request that nobody answers, closed by the client in one direction",
			port: httpDeaf, lingers: true, run: halfClosed(2_000),
		},
		{
			Name: "tcp-half-closed", What: "2,000 TCP connections, closed by the client in one direction, to a server that sends without an end",
			port: tcpFlood, lingers: true, run: halfClosed(2_000),
		},
		{
			Name: "vanish", What: "600 HTTP/1 uploads, then the pod is cut off and killed",
			port: httpDeaf, lingers: true, vanish: true, run: uploadHTTP1(600),
		},
		{
			Name: "vanish-downloads", What: "600 HTTP/1 downloads, then the pod is cut off and killed",
			port: httpFlood, lingers: true, vanish: true, run: downloadHTTP1(600),
		},
	}
}

// callEachPort makes one request to each port of the Service of many ports.
func callEachPort(ports int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		next := make(chan uint16)
		go func() {
			defer close(next)
			for i := range ports {
				select {
				case next <- uint16(firstPort + i):
				case <-ctx.Done():
					return
				}
			}
		}()
		return a.all(ctx, 32, func(ctx context.Context) error {
			for port := range next {
				if err := a.call(ctx, port); err != nil {
					a.refuse(err)
				}
			}
			// The others go on.
			<-ctx.Done()
			return ctx.Err()
		})
	}
}

// call makes a request on a new connection and reads its answer.
func (a *attacker) call(ctx context.Context, port uint16) error {
	c, err := a.dialPort(ctx, port)
	if err != nil {
		return err
	}
	defer c.Close()
	a.requests.Add(1)
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", a.target()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c)
	return err
}

// idle connects and does nothing. It takes at most 64 steps at once, as a client
// that connects to one server again and again does.
func idle(connections int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		steps := make(chan struct{}, 64)
		return a.each(ctx, connections, func(ctx context.Context) error {
			select {
			case steps <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			c, err := a.dial(ctx)
			<-steps
			if err != nil {
				return err
			}
			return hold(ctx, c)
		})
	}
}

// slowly sends a header field by bytes.
func slowly(connections int, every time.Duration) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			c, err := a.dial(ctx)
			if err != nil {
				return err
			}
			a.requests.Add(1)
			if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nx: ", a.target()); err != nil {
				return err
			}
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return ctx.Err()
				}
				if _, err := c.Write([]byte("v")); err != nil {
					return err
				}
			}
		})
	}
}

// halfClosed sends a request, says that there will be no more, and reads nothing.
func halfClosed(connections int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			c, err := a.dial(ctx)
			if err != nil {
				return err
			}
			a.requests.Add(1)
			if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", a.target()); err != nil {
				return err
			}
			if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		})
	}
}
