// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// rawServer is a server that takes one connection at a time and leaves it to
// the test what to read and write.
type rawServer struct {
	t        *testing.T
	listener net.Listener
}

func newRawServer(t *testing.T, address string) *rawServer {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &rawServer{t: t, listener: l}
}

func (s *rawServer) address() string { return s.listener.Addr().String() }

// accept waits for the next connection.
func (s *rawServer) accept(patience time.Duration) (*net.TCPConn, error) {
	if err := s.listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	c, err := s.listener.Accept()
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// quiet is how long nothing more must come for a message to count as over.
const quiet = 30 * time.Millisecond

// readAbout reads want bytes, and then whatever comes until it is quiet. If
// that many do not come, it returns what came in two seconds. The end of the
// stream shows as the text [EOF], a reset as [RST].
func readAbout(c net.Conn, want int) (string, error) {
	var got []byte
	buf := make([]byte, 64<<10)
	deadline := time.Now().Add(2 * time.Second)
	for {
		if len(got) >= want {
			deadline = time.Now().Add(quiet)
		}
		if err := c.SetReadDeadline(deadline); err != nil {
			return "", err
		}
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return string(got), nil
		case errors.Is(err, io.EOF):
			return string(got) + "[EOF]", nil
		case err != nil:
			return string(got) + "[RST]", nil
		}
	}
}

// exchange sends a request to dial and lets server answer it. It returns what
// the server saw and what the client saw; wantSeen and wantGot say how long
// either is expected to be.
type exchange struct {
	from              mode
	request, response string
	wantSeen, wantGot int
	// unseen is set if the server is to see no connection.
	unseen bool
}

func (e exchange) over(t *testing.T, dial string, server *rawServer, drained func()) (seen, got string) {
	t.Helper()
	defer drained()
	client := e.from.dial(t, dial)
	defer func() { _ = client.Close() }()
	go func() { _, _ = client.Write([]byte(e.request)) }() // A failure shows in what is seen.
	answered, done := make(chan string, 1), make(chan struct{})
	go func() {
		patience := 3 * time.Second
		if e.unseen {
			patience = 200 * time.Millisecond
		}
		conn, err := server.accept(patience)
		if err != nil {
			answered <- nobody
			return
		}
		seen, err := readAbout(conn, e.wantSeen)
		if err != nil {
			seen += err.Error()
		}
		_, err = conn.Write([]byte(e.response))
		if err != nil {
			seen += err.Error()
		}
		answered <- seen
		<-done
		_ = conn.Close()
	}()
	defer close(done)
	got, err := readAbout(client, e.wantGot)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case seen = <-answered:
	case <-time.After(4 * time.Second):
		seen = "[nothing]"
	}
	return seen, got
}
