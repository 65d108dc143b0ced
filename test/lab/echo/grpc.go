// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The service is registered by hand, so the tests need no protoc: both methods
// take a question and give an Answer as JSON, in a StringValue.
const (
	serviceName = "nodevoy.test.Echo"
	askMethod   = "/" + serviceName + "/Ask"
	talkMethod  = "/" + serviceName + "/Talk"
)

// asker is what the service is registered for.
type asker interface {
	ask(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error)
}

func (s *server) ask(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	from := ""
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	answer, err := s.answer(in.GetValue(), from, "grpc")
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(answer)
	return wrapperspb.String(string(text)), err
}

// serviceDesc describes Ask, unary, and Talk, a stream both ways.
func serviceDesc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*asker)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Ask",
			Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := new(wrapperspb.StringValue)
				if err := decode(in); err != nil {
					return nil, err
				}
				return srv.(asker).ask(ctx, in)
			},
		}},
		Streams: []grpc.StreamDesc{{
			StreamName:    "Talk",
			ServerStreams: true,
			ClientStreams: true,
			Handler:       talk,
		}},
	}
}

// talk answers every message of a stream until the client closes its side.
func talk(srv any, stream grpc.ServerStream) error {
	for {
		in := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(in); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		out, err := srv.(asker).ask(stream.Context(), in)
		if err != nil {
			return err
		}
		if err := stream.SendMsg(out); err != nil {
			return err
		}
	}
}

// grpcConn is a gRPC channel; with a stream, all calls are messages on it.
type grpcConn struct {
	channel *grpc.ClientConn
	stream  grpc.ClientStream
	end     context.CancelFunc
	retries atomic.Int64
	text    string
}

// dialGRPC makes a channel. gRPC retries a call by itself when it believes the
// server has not seen it; that can't be turned off, so it is made an error.
func dialGRPC(ctx context.Context, spec Spec) (conn, error) {
	c := &grpcConn{text: spec.question().String(), end: func() {}}
	var err error
	c.channel, err = grpc.NewClient("passthrough:///"+spec.Target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(),
		grpc.WithNoProxy(),
		grpc.WithContextDialer(spec.connect),
		grpc.WithStatsHandler(retryCounter{&c.retries}))
	if err != nil {
		return nil, fmt.Errorf("make a channel: %w", err)
	}
	if spec.Protocol == GRPCStream {
		// The stream outlives ctx, which only limits its opening.
		life, cancel := context.WithCancel(context.WithoutCancel(ctx))
		c.end = cancel
		stop := context.AfterFunc(ctx, cancel)
		defer stop()
		desc := &serviceDesc().Streams[0]
		if c.stream, err = c.channel.NewStream(life, desc, talkMethod); err != nil {
			c.close()
			return nil, fmt.Errorf("open a stream: %w", err)
		}
	}
	return c, nil
}

func (c *grpcConn) do(ctx context.Context) (Answer, error) {
	out := new(wrapperspb.StringValue)
	var err error
	if c.stream != nil {
		stop := context.AfterFunc(ctx, c.end)
		defer stop()
		if err = c.stream.SendMsg(wrapperspb.String(c.text)); err == nil || errors.Is(err, io.EOF) {
			err = c.stream.RecvMsg(out)
		}
	} else {
		err = c.channel.Invoke(ctx, askMethod, wrapperspb.String(c.text), out)
	}
	if err != nil {
		return Answer{}, err
	}
	if n := c.retries.Swap(0); n > 0 {
		return Answer{}, fmt.Errorf("answered only after %d retries by the library", n)
	}
	var answer Answer
	err = json.Unmarshal([]byte(out.GetValue()), &answer)
	return answer, err
}

func (c *grpcConn) reusable() bool { return true }

func (c *grpcConn) close() {
	c.end()
	// Nothing depends on how an abandoned channel ends.
	_ = c.channel.Close()
}

// retryCounter counts the attempts that repeat an earlier one.
type retryCounter struct{ n *atomic.Int64 }

// TagRPC does nothing.
func (retryCounter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn does nothing.
func (retryCounter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn does nothing.
func (retryCounter) HandleConn(context.Context, stats.ConnStats) {}

// HandleRPC counts an attempt that the library makes by itself.
func (r retryCounter) HandleRPC(_ context.Context, s stats.RPCStats) {
	if begin, ok := s.(*stats.Begin); ok && begin.IsTransparentRetryAttempt {
		r.n.Add(1)
	}
}
