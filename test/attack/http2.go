// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2 is an HTTP/2 connection, frame by frame: what libraries don't do.
type h2 struct {
	*http2.Framer
	attacker *attacker
	// mu is for whoever writes: the reader answers too.
	mu      sync.Mutex
	out     *bufio.Writer
	block   bytes.Buffer
	encoder *hpack.Encoder
	next    uint32
	// ended has the reason for which the server ended the connection.
	ended chan error
}

// dialH2 opens a connection with these settings; it answers what has to be
// answered, and drops all else.
func (a *attacker) dialH2(ctx context.Context, settings ...http2.Setting) (*h2, error) {
	c, err := a.dial(ctx)
	if err != nil {
		return nil, err
	}
	out := bufio.NewWriterSize(c, 64<<10)
	h := &h2{Framer: http2.NewFramer(out, c), attacker: a, out: out, next: 1, ended: make(chan error, 1)}
	h.AllowIllegalWrites = true
	h.encoder = hpack.NewEncoder(&h.block)
	if _, err := out.WriteString(http2.ClientPreface); err != nil {
		return nil, err
	}
	if err := h.write(func() error { return h.WriteSettings(settings...) }); err != nil {
		return nil, err
	}
	go func() { h.ended <- h.read() }()
	return h, nil
}

// write writes frames and flushes them.
func (h *h2) write(frames func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := frames(); err != nil {
		return err
	}
	return h.out.Flush()
}

// read takes in frames until the connection ends.
func (h *h2) read() error {
	for {
		frame, err := h.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = h.write(h.WriteSettingsAck)
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = h.write(func() error { return h.WritePing(true, f.Data) })
			}
		case *http2.GoAwayFrame:
			return fmt.Errorf("GOAWAY %s %.60q", f.ErrCode, f.DebugData())
		case *http2.RSTStreamFrame:
			h.attacker.refuse(fmt.Errorf("RST_STREAM %s", f.ErrCode))
		}
		if err != nil {
			return err
		}
	}
}

// hold waits until the server ends the connection, or ctx ends.
func (h *h2) hold(ctx context.Context) error {
	select {
	case err := <-h.ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fields encodes header fields, of a POST request first.
func (h *h2) fields(more ...hpack.HeaderField) ([]byte, error) {
	h.block.Reset()
	request := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: h.attacker.target()},
		{Name: ":path", Value: "/"},
	}
	for _, field := range append(request, more...) {
		if err := h.encoder.WriteField(field); err != nil {
			return nil, err
		}
	}
	return bytes.Clone(h.block.Bytes()), nil
}

// request opens the next stream with these fields, encoded, and returns its number.
func (h *h2) request(fields []byte, end bool) (uint32, error) {
	stream := h.next
	h.next += 2
	h.attacker.requests.Add(1)
	const most = 16 << 10
	err := h.write(func() error {
		first := fields[:min(len(fields), most)]
		rest := fields[len(first):]
		err := h.WriteHeaders(http2.HeadersFrameParam{
			StreamID: stream, BlockFragment: first, EndHeaders: len(rest) == 0, EndStream: end,
		})
		for err == nil && len(rest) > 0 {
			part := rest[:min(len(rest), most)]
			rest = rest[len(part):]
			err = h.WriteContinuation(stream, len(rest) == 0, part)
		}
		return err
	})
	return stream, err
}
