// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestResetCodes: a request that the server resets before it answers. To a gRPC client
// it ends with INTERNAL, unless the server has not begun with it: no client repeats
// what a server has begun. To others it is answered.
func TestResetCodes(t *testing.T) { bothModes(t, testResetCodes) }

func testResetCodes(t *testing.T, in mode) {
	address := h2Frames(t, "10.244.0.1:8080", func(p h2Peer, stream uint32, path string) error {
		var code uint32
		if _, err := fmt.Sscanf(path, "/reset/%d", &code); err != nil {
			return err
		}
		return p.WriteRSTStream(stream, http2.ErrCode(code))
	})
	in.fixture(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{address}}))
	conn := in.dialGRPC(t, "10.96.1.10:80")
	for code := http2.ErrCodeNo; code <= http2.ErrCodeHTTP11Required; code++ {
		path := fmt.Sprintf("/reset/%d", code)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := conn.Invoke(ctx, path, wrapperspb.String("x"), &wrapperspb.StringValue{})
		cancel()
		want := codes.Internal
		if code == http2.ErrCodeRefusedStream {
			want = codes.Unavailable
		}
		if got := status.Code(err); got != want {
			t.Errorf("gRPC, %s: %v, want %s", code, err, want)
		}
		p := in.dialH2(t, "10.96.1.10:80")
		if err := p.headers(1, true, get2(path)...); err != nil {
			t.Fatal(err)
		}
		answer := "503"
		if code == http2.ErrCodeProtocol {
			answer = "502"
		}
		if got := p.result(1); got.status != answer || got.end != "" {
			t.Errorf("%s: %+v, want %s", code, got, answer)
		}
	}
}

// TestUnavoidableHTTP2: what ends a connection or a stream by HTTP/2 that would not
// without Envoy.
func TestUnavoidableHTTP2(t *testing.T) { bothModes(t, testUnavoidableHTTP2) }

func testUnavoidableHTTP2(t *testing.T, in mode) {
	address := h2Frames(t, "10.244.0.1:8080", func(p h2Peer, stream uint32, path string) error {
		if path == "/cut" {
			return errors.Join(p.headers(stream, false, field{":status", "200"}), p.WriteRSTStream(stream, http2.ErrCodeCancel))
		}
		return p.ok(stream)
	})
	in.fixture(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{address}}))
	if got := in.ask2(t, get2("/")...); got != (h2Answer{status: "200"}) {
		t.Fatalf("%+v, want 200", got)
	}
	if got := in.ask2(t, get2("/cut")...); got != (h2Answer{status: "200", end: "reset: INTERNAL_ERROR"}) {
		t.Errorf("reset by CANCEL after headers: %+v, want INTERNAL_ERROR", got)
	}
	if got := in.ask2(t, field{":method", "OPTIONS"}, field{":scheme", "http"}, field{":path", "*"}, field{":authority", "web"}); got.status != "404" {
		t.Errorf("OPTIONS *: %+v, want 404", got)
	}
	for name, frames := range map[string]func(f *http2.Framer) error{
		"window updates before any data": repeat(300, func(f *http2.Framer, _ int) error { return f.WriteWindowUpdate(0, 1) }),
		"empty frames of data":           repeat(150, emptyData),
		"pings":                          repeat(5000, func(f *http2.Framer, _ int) error { return f.WritePing(false, [8]byte{}) }),
		"cancelled requests": repeat(600, func(f *http2.Framer, i int) error {
			stream := uint32(2*i + 1)
			return errors.Join(f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, EndStream: true, BlockFragment: block(get2("/"))}),
				f.WriteRSTStream(stream, http2.ErrCodeCancel))
		}),
	} {
		p := in.dialH2(t, "10.96.1.10:80")
		if name == "empty frames of data" {
			if err := p.headers(1, false, get2("/")...); err != nil {
				t.Fatal(err)
			}
		}
		_ = errors.Join(p.frames(frames), p.headers(9999, true, get2("/")...)) // It may be closed by now.
		if got := p.result(9999); !strings.HasPrefix(got.end, "connection: ") {
			t.Errorf("%s: %+v, want the connection closed", name, got)
		}
	}
}

// ask2 makes a request on a connection of its own.
func (m mode) ask2(t *testing.T, fields ...field) h2Answer {
	t.Helper()
	p := m.dialH2(t, "10.96.1.10:80")
	if err := p.headers(1, true, fields...); err != nil {
		t.Fatal(err)
	}
	return p.result(1)
}
