// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// pair is the two ends of one connection through Envoy.
type pair struct {
	t              *testing.T
	client, server *net.TCPConn
}

// open connects to a frontend. first, if not empty, is sent before the server
// is looked for: on an HTTP listener there is no connection without a request.
func (w *wire) open(t *testing.T, address, first string) pair {
	t.Helper()
	p := pair{t: t, client: w.mode.dial(t, address)}
	p.send(p.client, first)
	var err error
	if p.server, err = w.server.accept(3 * time.Second); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.server.Close() })
	return p
}

func (p pair) send(c net.Conn, text string) {
	p.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		p.t.Fatal(err)
	}
}

// expect reads exactly this text.
func (p pair) expect(c net.Conn, want string) {
	p.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(3 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	if err != nil || string(got) != want {
		p.t.Fatalf("got %q, %v; want %q", got[:n], err, want)
	}
}

// ends reads the end of the stream, and nothing before it.
func (p pair) ends(c net.Conn) {
	p.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(3 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.EOF) {
		p.t.Fatalf("got %d bytes, %v; want the end", n, err)
	}
}

const (
	chunkedPost = "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n"
	chunkedOK   = "HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	// earlyOK is chunkedOK to a request that has not ended: see TestUnavoidable.
	earlyOK = "HTTP/1.1 200 OK\r\nDate: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
)

// TestStreams: what is sent arrives at once, in both directions, whatever the
// other side does meanwhile.
func TestStreams(t *testing.T) { bothModes(t, testStreams) }

func testStreams(t *testing.T, in mode) {
	w := newWire(t, in)
	t.Run("both ways by turns", func(t *testing.T) {
		p := w.open(t, w.frontends[0], chunkedPost)
		p.expect(p.server, chunkedPost)
		p.send(p.server, chunkedOK)
		p.expect(p.client, earlyOK)
		for i := range 20 {
			chunk := fmt.Sprintf("4\r\nm%03d\r\n", i)
			p.send(p.client, chunk)
			p.expect(p.server, chunk)
			p.send(p.server, chunk)
			p.expect(p.client, chunk)
		}
		p.send(p.client, "0\r\n\r\n")
		p.expect(p.server, "0\r\n\r\n")
		p.send(p.server, "0\r\n\r\n")
		p.expect(p.client, "0\r\n\r\n")
	})
	w.drained()
	t.Run("expect continue", func(t *testing.T) {
		head := "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
		p := w.open(t, w.frontends[0], head)
		p.expect(p.server, head)
		p.send(p.server, "HTTP/1.1 100 Continue\r\n\r\n")
		p.expect(p.client, "HTTP/1.1 100 Continue\r\n\r\n")
		p.send(p.client, "abc")
		p.expect(p.server, "abc")
		p.send(p.server, answer)
		p.expect(p.client, answer)
	})
	w.drained()
	t.Run("websocket frames", func(t *testing.T) {
		head := get11("/", "Connection: Upgrade\r\nUpgrade: websocket\r\n")
		p := w.open(t, w.frontends[0], head)
		p.expect(p.server, head)
		ok := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nDate: x\r\n\r\n"
		p.send(p.server, ok)
		p.expect(p.client, ok)
		p.pingPong()
	})
	w.drained()
	t.Run("a tunnel", func(t *testing.T) {
		head := "CONNECT foo:443 HTTP/1.1\r\nHost: foo:443\r\n\r\n"
		p := w.open(t, w.frontends[0], head)
		p.expect(p.server, head)
		p.send(p.server, "HTTP/1.1 200 OK\r\nDate: x\r\n\r\n")
		p.expect(p.client, "HTTP/1.1 200 OK\r\nDate: x\r\n\r\n")
		p.pingPong()
	})
	w.drained()
	t.Run("a slow answer on a quiet connection", func(t *testing.T) {
		head := get11("/", "")
		p := w.open(t, w.frontends[0], head)
		p.expect(p.server, head)
		// Longer than any timeout that was set for something else.
		<-time.After(2*w.fixture.cfg.UpstreamIdle + w.fixture.cfg.DiscoveryTimeout)
		p.send(p.server, answer)
		p.expect(p.client, answer)
		<-time.After(w.fixture.cfg.UpstreamIdle + 500*time.Millisecond)
		// The client's connection is still good; the server's is another.
		p.send(p.client, head)
		next, err := w.server.accept(3 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = next.Close() })
		p.expect(next, head)
		p.send(next, answer)
		p.expect(p.client, answer)
	})
}

func (p pair) pingPong() {
	p.t.Helper()
	for i := range 20 {
		frame := fmt.Sprintf("\x00\xff%03d", i)
		p.send(p.client, frame)
		p.expect(p.server, frame)
		p.send(p.server, frame)
		p.expect(p.client, frame)
	}
}

// TestRefusedUpgradeIsNotReused: bytes that follow a refused upgrade must not
// become a request on a connection that others use.
func TestRefusedUpgradeIsNotReused(t *testing.T) { bothModes(t, testRefusedUpgradeIsNotReused) }

func testRefusedUpgradeIsNotReused(t *testing.T, in mode) {
	w := newWire(t, in)
	head := get11("/", "Connection: Upgrade\r\nUpgrade: websocket\r\n")
	p := w.open(t, w.frontends[0], head)
	p.expect(p.server, head)
	p.send(p.client, get11("/smuggled", "")) // Too early: nothing was agreed yet.
	p.send(p.server, "HTTP/1.1 400 No\r\nDate: x\r\nContent-Length: 0\r\n\r\n")
	p.expect(p.client, "HTTP/1.1 400 No\r\nDate: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	p.ends(p.server)
}

// TestTCP: bytes and their ends, one way at a time.
func TestTCP(t *testing.T) { bothModes(t, testTCP) }

func testTCP(t *testing.T, in mode) {
	w := newWire(t, in)
	const raw = "10.96.2.10:80"
	t.Run("the server speaks first", func(t *testing.T) {
		p := w.open(t, raw, "")
		p.send(p.server, "220 hello\r\n")
		p.expect(p.client, "220 hello\r\n")
		p.pingPong()
	})
	t.Run("the server speaks first where nothing is declared", func(t *testing.T) {
		start := time.Now()
		p := w.open(t, w.frontends[1], "")
		if took := time.Since(start); took > w.fixture.cfg.DetectTimeout+300*time.Millisecond {
			t.Errorf("the server is connected to after %v", took)
		}
		p.send(p.server, "220 hello\r\n")
		p.expect(p.client, "220 hello\r\n")
		p.pingPong()
	})
	t.Run("the client ends first", func(t *testing.T) {
		p := w.open(t, raw, "question")
		p.expect(p.server, "question")
		if err := p.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		p.ends(p.server)
		p.send(p.server, "answer")
		p.expect(p.client, "answer")
		if err := p.server.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		p.ends(p.client)
	})
	t.Run("the server ends first", func(t *testing.T) {
		p := w.open(t, raw, "question")
		p.expect(p.server, "question")
		p.send(p.server, "answer")
		if err := p.server.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		p.expect(p.client, "answer")
		p.ends(p.client)
		p.send(p.client, "more")
		p.expect(p.server, "more")
		if err := p.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		p.ends(p.server)
	})
	t.Run("either resets", func(t *testing.T) {
		p := w.open(t, raw, "question")
		p.expect(p.server, "question")
		resets(t, p.client, p.server)
		p = w.open(t, raw, "question")
		p.expect(p.server, "question")
		resets(t, p.server, p.client)
	})
	t.Run("a quiet connection", func(t *testing.T) {
		p := w.open(t, raw, "question")
		p.expect(p.server, "question")
		<-time.After(2*w.fixture.cfg.UpstreamIdle + w.fixture.cfg.DiscoveryTimeout)
		p.pingPong()
	})
}

// resets closes one end by a reset and sees how the other ends.
func resets(t *testing.T, one, other *net.TCPConn) {
	t.Helper()
	if err := one.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := readAbout(other, 1)
	if err != nil || got != "[RST]" {
		t.Errorf("the other end sees %q, %v; want a reset", got, err)
	}
}

// TestLargeBodies: much data in both directions, and all of it.
func TestLargeBodies(t *testing.T) { bothModes(t, testLargeBodies) }

func testLargeBodies(t *testing.T, in mode) {
	w := newWire(t, in)
	const size = 64 << 20
	for _, address := range append(w.frontends, "10.96.2.10:80") {
		t.Run(address, func(t *testing.T) {
			head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n", size)
			p := w.open(t, address, head)
			p.expect(p.server, head)
			p.pour(p.client, p.server, size)
			ok := fmt.Sprintf("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: %d\r\n\r\n", size)
			p.send(p.server, ok)
			p.expect(p.client, ok)
			p.pour(p.server, p.client, size)
		})
		w.drained()
	}
}

// pour sends size random bytes from one end and checks what comes out.
func (p pair) pour(from, to net.Conn, size int64) {
	p.t.Helper()
	sent := make(chan string, 1)
	go func() {
		sum := sha256.New()
		_, err := io.Copy(from, io.TeeReader(io.LimitReader(rand.Reader, size), sum))
		sent <- fmt.Sprintf("%x %v", sum.Sum(nil), err)
	}()
	if err := to.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	sum := sha256.New()
	n, err := io.CopyN(sum, to, size)
	got := fmt.Sprintf("%x %v", sum.Sum(nil), err)
	if want := <-sent; got != want {
		p.t.Errorf("%d bytes of %d came: %s, want %s", n, size, got, want)
	}
}

// TestPipelining: requests sent together are answered in order.
func TestPipelining(t *testing.T) { bothModes(t, testPipelining) }

func testPipelining(t *testing.T, in mode) {
	w := newWire(t, in)
	p := w.open(t, w.frontends[0], get11("/1", "")+get11("/2", ""))
	p.expect(p.server, get11("/1", ""))
	p.send(p.server, answer)
	p.expect(p.client, answer)
	p.expect(p.server, get11("/2", ""))
	p.send(p.server, strings.Replace(answer, "hi", "ho", 1))
	p.expect(p.client, strings.Replace(answer, "hi", "ho", 1))
}
