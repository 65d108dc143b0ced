// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// uploadAttacks send what nobody reads, or read nothing of what is sent. All of it
// is what libraries do when the other side hangs.
func uploadAttacks() []attack {
	return []attack{
		{
			Name: "2 h2-upload", What: "1 HTTP/2 connection with 32 uploads that nobody reads",
			port: httpDeaf, run: uploadH2(1, 32),
		},
		{
			Name: "2 h2-uploads", What: "40 HTTP/2 connections with 32 uploads each that nobody reads",
			port: httpDeaf, Short: true, run: uploadH2(40, 32),
		},
		{
			Name: "2 h2-uploads-hung", What: "40 HTTP/2 connections with 32 uploads each to a server that hangs",
			port: httpHung, run: uploadH2(40, 32),
		},
		{
			Name: "2 grpc-hung", What: "40 gRPC channels with 32 streams of messages each to a server that hangs",
			port: httpHung, run: uploadGRPC(40, 32),
		},
		{
			Name: "4 uploads", What: "600 HTTP/1 uploads that nobody reads",
			port: httpDeaf, lingers: true, Short: true, run: uploadHTTP1(600),
		},
		{
			Name: "4 uploads-hung", What: "600 HTTP/1 uploads to a server that hangs",
			port: httpHung, lingers: true, run: uploadHTTP1(600),
		},
		{
			Name: "4 uploads-reset", What: "600 HTTP/1 uploads that nobody reads, and then reset by the client",
			port: httpDeaf, lingers: true, run: uploadAndReset(600),
		},
		{
			Name: "4 tcp-uploads", What: "600 TCP uploads that nobody reads",
			port: tcpDeaf, lingers: true, run: uploadTCP(600),
		},
		{
			Name: "4 tcp-uploads-reset", What: "600 TCP uploads that nobody reads, and then reset by the client",
			port: tcpDeaf, lingers: true, run: uploadAndReset(600),
		},
		{
			Name: "4 downloads", What: "600 HTTP/1 downloads that the client doesn't read",
			port: httpFlood, run: downloadHTTP1(600),
		},
		{
			Name: "4 h2-downloads", What: "40 HTTP/2 connections with 32 downloads each that the client doesn't read",
			port: httpFlood, run: downloadH2(40, 32),
		},
		{
			Name: "4 tcp-downloads", What: "600 TCP downloads that the client doesn't read",
			port: tcpFlood, run: downloadTCP(600),
		},
	}
}

// connect makes a connection, outside any pool, that net/http speaks HTTP/1 or HTTP/2
// on. It ends with ctx.
func (a *attacker) connect(ctx context.Context, version2 bool) (*http.ClientConn, error) {
	var protocols http.Protocols
	protocols.SetHTTP1(!version2)
	protocols.SetUnencryptedHTTP2(version2)
	transport := &http.Transport{
		Protocols:   &protocols,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return a.dial(ctx) },
	}
	return transport.NewClientConn(ctx, "http", a.target())
}

// upload posts a body without an end, and gives up what is answered.
func (a *attacker) upload(ctx context.Context, conn *http.ClientConn) error {
	body := endless{new(atomic.Int64)}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+a.target()+"/", body)
	if err != nil {
		return err
	}
	a.requests.Add(1)
	return answered(conn.RoundTrip(request))
}

// answered is the error of a request that is to stay without an answer.
func answered(response *http.Response, err error) error {
	if err != nil {
		return err
	}
	response.Body.Close()
	return errors.New("answered by " + response.Status)
}

// uploadH2 posts on several streams of several connections.
func uploadH2(connections, streams int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			conn, err := a.connect(ctx, true)
			if err != nil {
				return err
			}
			return a.all(ctx, streams, func(ctx context.Context) error { return a.upload(ctx, conn) })
		})
	}
}

// all does something n times at once, and ends all of it with the first to end.
func (a *attacker) all(ctx context.Context, n int, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for range n {
		group.Go(func() { cancel(do(ctx)) })
	}
	group.Wait()
	return context.Cause(ctx)
}

// uploadHTTP1 posts on connections of their own.
func uploadHTTP1(connections int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			conn, err := a.connect(ctx, false)
			if err != nil {
				return err
			}
			return a.upload(ctx, conn)
		})
	}
}

// uploadGRPC sends messages on several streams of several channels.
func uploadGRPC(channels, streams int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, channels, func(ctx context.Context) error {
			channel, err := grpc.NewClient("passthrough:///"+a.target(), grpc.WithNoProxy(),
				grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return a.dial(ctx) }))
			if err != nil {
				return err
			}
			defer func() { _ = channel.Close() }()
			return a.all(ctx, streams, func(ctx context.Context) error { return a.sendMessages(ctx, channel) })
		})
	}
}

func (a *attacker) sendMessages(ctx context.Context, channel *grpc.ClientConn) error {
	stream, err := channel.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/attack.Sink/Send")
	if err != nil {
		return err
	}
	a.requests.Add(1)
	message := wrapperspb.Bytes(make([]byte, 64<<10))
	for {
		if err := stream.SendMsg(message); err != nil {
			return fmt.Errorf("send a message: %w", err)
		}
	}
}

// uploadTCP writes without an end.
func uploadTCP(connections int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			c, err := a.dial(ctx)
			if err != nil {
				return err
			}
			_, err = io.Copy(c, endless{new(atomic.Int64)})
			return err
		})
	}
}

// uploadAndReset writes a body without an end, and resets the connection in the end.
func uploadAndReset(connections int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			c, err := a.dial(ctx)
			if err != nil {
				return err
			}
			if err := c.Conn.(*net.TCPConn).SetLinger(0); err != nil {
				return err
			}
			a.requests.Add(1)
			if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", a.target(), int64(1)<<40); err != nil {
				return err
			}
			_, err = io.Copy(c, endless{new(atomic.Int64)})
			return err
		})
	}
}

// downloadHTTP1 asks, and doesn't read.
func downloadHTTP1(connections int) func(context.Context, *attacker) error {
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
			<-ctx.Done()
			return ctx.Err()
		})
	}
}

// downloadH2 asks on several streams, and doesn't read the bodies.
func downloadH2(connections, streams int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			conn, err := a.connect(ctx, true)
			if err != nil {
				return err
			}
			return a.all(ctx, streams, func(ctx context.Context) error {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.target()+"/", nil)
				if err != nil {
					return err
				}
				a.requests.Add(1)
				response, err := conn.RoundTrip(request)
				if err != nil {
					return err
				}
				defer response.Body.Close()
				<-ctx.Done()
				return ctx.Err()
			})
		})
	}
}

// downloadTCP connects, and doesn't read.
func downloadTCP(connections int) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		return a.each(ctx, connections, func(ctx context.Context) error {
			if _, err := a.dial(ctx); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		})
	}
}
