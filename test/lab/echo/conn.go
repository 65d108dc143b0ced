// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// conn is one connection, or gRPC channel, of a client.
type conn interface {
	// do asks once and waits for the answer.
	do(ctx context.Context) (Answer, error)
	// reusable says whether another do may follow on this connection.
	reusable() bool
	close()
}

// dial opens a connection as the spec says.
func dial(ctx context.Context, spec Spec) (conn, error) {
	switch spec.Protocol {
	case HTTP10, HTTP1:
		return dialHTTP1(ctx, spec)
	case H2C:
		return dialH2C(ctx, spec)
	case GRPC, GRPCStream:
		return dialGRPC(ctx, spec)
	case TCP:
		return dialTCP(ctx, spec)
	}
	return nil, fmt.Errorf("unknown protocol %q", spec.Protocol)
}

// wire is a TCP connection with a reader, whose deadline follows a context.
type wire struct {
	net.Conn
	in *bufio.Reader
}

func dialWire(ctx context.Context, spec Spec) (*wire, error) {
	c, err := spec.connect(ctx, spec.Target)
	if err != nil {
		return nil, err
	}
	return &wire{Conn: c, in: bufio.NewReader(c)}, nil
}

// ask writes the text and has read parse what comes back.
func (w *wire) ask(ctx context.Context, text []byte, read func() error) error {
	deadline, _ := ctx.Deadline()
	if err := w.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	return read()
}

// http1Conn speaks HTTP/1 by hand: net/http would silently repeat a request
// that failed on a kept-alive connection.
type http1Conn struct {
	*wire
	request []byte
	asHTTP  *http.Request
	last    bool
}

func dialHTTP1(ctx context.Context, spec Spec) (conn, error) {
	w, err := dialWire(ctx, spec)
	if err != nil {
		return nil, err
	}
	version := "1.1"
	if spec.Protocol == HTTP10 {
		version = "1.0"
	}
	text := fmt.Sprintf("GET %s HTTP/%s\r\nHost: %s\r\nUser-Agent: lab\r\n\r\n", spec.question().path(), version, spec.Target)
	return &http1Conn{wire: w, request: []byte(text), asHTTP: &http.Request{Method: http.MethodGet}}, nil
}

func (c *http1Conn) do(ctx context.Context) (Answer, error) {
	var answer Answer
	err := c.ask(ctx, c.request, func() error {
		response, err := http.ReadResponse(c.in, c.asHTTP)
		if err != nil {
			return err
		}
		c.last = response.Close
		answer, err = readAnswer(response)
		return err
	})
	return answer, err
}

func (c *http1Conn) reusable() bool { return !c.last }
func (c *http1Conn) close()         { _ = c.Close() }

// readAnswer reads a response to its end.
func readAnswer(response *http.Response) (Answer, error) {
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, err
	}
	if response.StatusCode != http.StatusOK {
		return Answer{}, fmt.Errorf("status %d: %.80q", response.StatusCode, body)
	}
	var answer Answer
	err = json.Unmarshal(body, &answer)
	return answer, err
}

// h2cConn is a single HTTP/2 connection in clear text, outside any pool.
type h2cConn struct {
	*http.ClientConn
	url string
}

func dialH2C(ctx context.Context, spec Spec) (conn, error) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols:   &protocols,
		DialContext: func(ctx context.Context, _, target string) (net.Conn, error) { return spec.connect(ctx, target) },
	}
	c, err := transport.NewClientConn(ctx, "http", spec.Target)
	if err != nil {
		return nil, err
	}
	return &h2cConn{ClientConn: c, url: "http://" + spec.Target + spec.question().path()}, nil
}

func (c *h2cConn) do(ctx context.Context) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return Answer{}, err
	}
	response, err := c.RoundTrip(request)
	if err != nil {
		return Answer{}, err
	}
	return readAnswer(response)
}

func (c *h2cConn) reusable() bool { return c.Err() == nil && c.Available() > 0 }
func (c *h2cConn) close()         { _ = c.Close() }

// tcpConn asks by lines on a plain TCP connection.
type tcpConn struct {
	*wire
	line []byte
}

func dialTCP(ctx context.Context, spec Spec) (conn, error) {
	w, err := dialWire(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &tcpConn{wire: w, line: []byte(spec.question().String() + "\n")}, nil
}

func (c *tcpConn) do(ctx context.Context) (Answer, error) {
	var answer Answer
	err := c.ask(ctx, c.line, func() error {
		line, err := c.in.ReadBytes('\n')
		if err != nil {
			return err
		}
		return json.Unmarshal(line, &answer)
	})
	return answer, err
}

func (c *tcpConn) reusable() bool { return true }
func (c *tcpConn) close()         { _ = c.Close() }

// timeout is a request's time limit when its Spec has none.
const timeout = 10 * time.Second
