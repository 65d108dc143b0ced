// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/http2"
)

// frames are written with one call, as fast as the kernel takes them.
func (p h2Peer) frames(write func(f *http2.Framer) error) error {
	var out bytes.Buffer
	f := http2.NewFramer(&out, nil)
	f.AllowIllegalWrites = true
	if err := write(f); err != nil {
		return err
	}
	_, err := p.conn.Write(out.Bytes())
	return err
}

// repeat writes n frames.
func repeat(n int, frame func(f *http2.Framer, i int) error) func(f *http2.Framer) error {
	return func(f *http2.Framer) error {
		for i := range n {
			if err := frame(f, i); err != nil {
				return err
			}
		}
		return nil
	}
}

func emptyData(f *http2.Framer, _ int) error { return f.WriteData(1, false, nil) }

// TestHTTP2Limits: what a connection or a message may have of frames and fields without
// being ended. By default, Envoy ends all of these.
func TestHTTP2Limits(t *testing.T) { bothModes(t, testHTTP2Limits) }

func testHTTP2Limits(t *testing.T, in mode) {
	address := h2Frames(t, "10.244.0.1:8080", func(p h2Peer, stream uint32, path string) error {
		switch path {
		case "/never":
			return nil
		case "/empty":
			return errors.Join(p.headers(stream, false, field{":status", "200"}),
				p.frames(repeat(100, emptyData)), p.WriteData(stream, true, nil))
		case "/field":
			return p.headers(stream, true, field{":status", "200"}, field{"x-large", strings.Repeat("x", 240<<10)})
		case "/byte":
			return errors.Join(p.headers(stream, false, field{":status", "200"}), p.WriteData(stream, false, []byte("x")))
		}
		return p.ok(stream)
	})
	in.fixture(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{address}}))
	for _, c := range []struct {
		name string
		send func(p h2Peer) error
		last uint32
	}{
		{"a field of 120 KiB", func(p h2Peer) error {
			return p.headers(1, true, get2("/", field{"x-large", strings.Repeat("x", 120<<10)})...)
		}, 1},
		{"100 empty frames of data", func(p h2Peer) error {
			return errors.Join(p.headers(1, false, get2("/never")...), p.frames(repeat(100, emptyData)), p.headers(3, true, get2("/")...))
		}, 3},
		{"100 of the server", func(p h2Peer) error { return p.headers(1, true, get2("/empty")...) }, 1},
		{"10,000 priorities", func(p h2Peer) error {
			return errors.Join(p.frames(repeat(10_000, func(f *http2.Framer, i int) error {
				return f.WritePriority(uint32(2*i+3), http2.PriorityParam{Weight: 1})
			})), p.headers(1, true, get2("/")...))
		}, 1},
	} {
		p := in.dialH2(t, "10.96.1.10:80")
		if err := c.send(p); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := p.result(c.last); got != (h2Answer{status: "200"}) {
			t.Errorf("%s: %+v, want 200", c.name, got)
		}
	}
	in.testWindowUpdates(t)
}

// testWindowUpdates: as many as a client likes, once it has got a byte.
func (m mode) testWindowUpdates(t *testing.T) {
	t.Helper()
	p := m.dialH2(t, "10.96.1.10:80")
	err := p.headers(1, true, get2("/byte")...)
	for err == nil {
		var frame http2.Frame
		if frame, err = p.ReadFrame(); err == nil && frame.Header().Type == http2.FrameData {
			break
		}
		if f, is := frame.(*http2.HeadersFrame); is {
			_, err = p.fields.DecodeFull(f.HeaderBlockFragment())
		}
	}
	err = errors.Join(err, p.frames(repeat(10_000, func(f *http2.Framer, _ int) error { return f.WriteWindowUpdate(0, 1) })),
		p.headers(3, true, get2("/")...))
	if got := p.result(3); err != nil || got != (h2Answer{status: "200"}) {
		t.Errorf("10,000 window updates: %+v, %v; want 200", got, err)
	}
}

// TestManyMessages: thousands of small messages that Envoy finds in the kernel at once,
// for a client with a large window, as when Envoy was busy. It closes a connection for
// which 10,000 frames wait.
func TestManyMessages(t *testing.T) { bothModes(t, testManyMessages) }

func testManyMessages(t *testing.T, in mode) {
	const messages = 100_000
	var r *fixture
	address := h2Frames(t, "10.244.0.1:8080", func(p h2Peer, stream uint32, path string) error {
		if path == "/" {
			return p.ok(stream)
		}
		// The kernel takes all of it while Envoy stands still.
		if err := errors.Join(p.conn.SetWriteBuffer(4<<20), r.envoy.Process.Signal(syscall.SIGSTOP)); err != nil {
			return err
		}
		err := p.headers(stream, false, field{":status", "200"})
		written := make(chan error, 1)
		var out bytes.Buffer
		f := http2.NewFramer(&out, nil)
		for range messages {
			err = errors.Join(err, f.WriteData(stream, false, []byte("x")))
		}
		err = errors.Join(err, f.WriteData(stream, true, nil))
		go func() {
			_, err := p.conn.Write(out.Bytes())
			written <- err
		}()
		return errors.Join(err, r.envoy.Process.Signal(syscall.SIGCONT), <-written)
	})
	r = in.fixture(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{address}}))
	p := in.dialH2(t, "10.96.1.10:80", http2.Setting{ID: http2.SettingInitialWindowSize, Val: 16 << 20})
	if err := errors.Join(p.WriteWindowUpdate(0, 1<<30), p.headers(1, true, get2("/many")...)); err != nil {
		t.Fatal(err)
	}
	if got := p.result(1); got != (h2Answer{status: "200", body: messages}) {
		t.Errorf("%+v, want 200 and %d bytes", got, messages)
	}
}
