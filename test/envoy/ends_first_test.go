// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const endsFirstMessages = 20_000

// endsFirstServer is a gRPC server that sends messages and ends the stream, which its
// client has not. After that it resets the stream.
func endsFirstServer(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		if err := s.RecvMsg(&wrapperspb.StringValue{}); err != nil {
			return err
		}
		for range endsFirstMessages {
			if err := s.SendMsg(wrapperspb.String("x")); err != nil {
				return err
			}
		}
		return nil
	}))
	go func() { _ = server.Serve(l) }() // Ends with Stop.
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

// TestServerEndsFirst: of a stream that the server ends before the client, one that takes
// its time gets only what it has a window for, whether the server resets the stream then
// or not: Envoy does at once, and drops what it holds. By class tcp it gets all. Envoy has a
// setting for servers that don't reset it (allow_multiplexed_upstream_half_close), but then
// ends itself at TestRefusedUpgradeAfterAnother.
func TestServerEndsFirst(t *testing.T) { bothModes(t, testServerEndsFirst) }

func testServerEndsFirst(t *testing.T, in mode) {
	const body = 200_000
	answer := func(reset bool) func(p h2Peer, stream uint32, path string) error {
		return func(p h2Peer, stream uint32, _ string) error {
			err := p.headers(stream, false, field{":status", "200"})
			for range body / 10_000 {
				err = errors.Join(err, p.WriteData(stream, false, make([]byte, 10_000)))
			}
			err = errors.Join(err, p.headers(stream, true, field{"grpc-status", "0"}))
			if reset {
				err = errors.Join(err, p.WriteRSTStream(stream, http2.ErrCodeNo))
			}
			return err
		}
	}
	java, goes := h2Frames(t, "10.244.0.1:8080", answer(false)), h2Frames(t, "10.244.0.2:8080", answer(true))
	in.fixture(t, nodeOf(t,
		service{"quiet", "10.96.1.10:80", []string{java}}, service{"resets", "10.96.1.11:80", []string{goes}},
		service{"bytes", "10.96.2.10:80", []string{endsFirstServer(t, "10.244.0.3:8080")}}))

	// The client has a window of 64 kB, and opens none.
	take := func(address string) h2Answer {
		p := in.dialH2(t, address)
		if err := p.headers(1, false, get2("/")...); err != nil {
			t.Fatal(err)
		}
		var early int
		for early < 65_535 {
			frame, err := p.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			switch f := frame.(type) {
			case *http2.HeadersFrame:
				_, err = p.fields.DecodeFull(f.HeaderBlockFragment())
			case *http2.DataFrame:
				early += len(f.Data())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		got := p.result(1)
		got.body += early
		return got
	}
	for _, address := range []string{"10.96.1.10:80", "10.96.1.11:80"} {
		if got := take(address); got.body != 65_535 || got.end == "" {
			t.Errorf("%s: %+v, want it cut off", address, got)
		}
	}
	if n, err := in.receive(t, "10.96.2.10:80"); n != endsFirstMessages || !errors.Is(err, io.EOF) {
		t.Errorf("as bytes: %d of %d messages, %v", n, endsFirstMessages, err)
	}
}

// receive counts the messages of a stream that the client doesn't end.
func (m mode) receive(t *testing.T, address string) (int, error) {
	t.Helper()
	s, err := m.dialGRPC(t, address).NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/any/stream")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendMsg(wrapperspb.String("go")); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		if err := s.RecvMsg(&wrapperspb.StringValue{}); err != nil {
			return n, err
		}
	}
}
