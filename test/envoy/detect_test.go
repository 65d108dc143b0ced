// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
)

// TestOtherProtocols: what begins like a request and is none passes byte for byte where
// the protocol is detected, as do first bytes that are no text.
func TestOtherProtocols(t *testing.T) { bothModes(t, testOtherProtocols) }

func testOtherProtocols(t *testing.T, in mode) {
	w := newWire(t, in)
	for _, first := range []string{
		"get /users/1\r\n", "nSCAN /data/x\n", "HELLO /x\r\n", "stats\r\n", "app.hits 1 1700000000\n", "EHLO client.example\r\n",
		"GETS key\r\n", "PUT 1 2 3 4\r\n", "SUB a 1\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "\x03\x00\x00\x13\n",
	} {
		p := w.open(t, w.frontends[1], first)
		p.expect(p.server, first)
		p.send(p.server, "answer")
		p.expect(p.client, "answer")
		p.pingPong()
	}
}

// TestLongFirstLine: text without the end of a line, more than Envoy looks at, passes; after
// the detect timeout, if it begins as a request of HTTP does.
func TestLongFirstLine(t *testing.T) { bothModes(t, testLongFirstLine) }

func testLongFirstLine(t *testing.T, in mode) {
	w := newWire(t, in)
	text := strings.Repeat("a", 500_000)
	for _, text := range []string{text, "GET /" + text} {
		for _, first := range []int{5, 100_000} {
			p := w.open(t, w.frontends[1], text[:first])
			p.send(p.client, text[first:])
			if got, err := readAbout(p.server, len(text)); err != nil || got != text {
				t.Errorf("%.5s...: the server sees %d bytes, %v; want all", text, len(got), err)
			}
			p.pingPong()
		}
	}
}

// TestUndecided: bytes that may yet become a request wait for more, and then pass.
func TestUndecided(t *testing.T) { bothModes(t, testUndecided) }

func testUndecided(t *testing.T, in mode) {
	w := newWire(t, in)
	start := time.Now()
	p := w.open(t, w.frontends[1], "GE")
	p.expect(p.server, "GE")
	if took := time.Since(start); took < w.fixture.cfg.DetectTimeout {
		t.Errorf("the server sees half a method after %v, want the detect timeout", took)
	}
	p.pingPong()
}

// TestDetectedSendAndClose: where the protocol is detected, what a client sends before
// it closes at once reaches the server whole or, if Envoy sees both together, not at all.
func TestDetectedSendAndClose(t *testing.T) { bothModes(t, testDetectedSendAndClose) }

func testDetectedSendAndClose(t *testing.T, in mode) {
	w := newWire(t, in)
	const message = "app.hits 1 1700000000\n"
	lost := 0
	for range 20 {
		client := in.dial(t, w.frontends[1])
		if _, err := client.Write([]byte(message)); err != nil {
			t.Fatal(err)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		server, err := w.server.accept(200 * time.Millisecond)
		if err != nil {
			lost++
			continue
		}
		if got, err := readAbout(server, len(message)); err != nil || got != message+"[EOF]" {
			t.Errorf("the server sees %q, %v", got, err)
		}
		_ = server.Close()
	}
	t.Logf("%d of 20 messages were lost", lost)
}

// TestSendAndClose: what a client sends before it closes at once reaches the server,
// where the protocol is not detected.
func TestSendAndClose(t *testing.T) { bothModes(t, testSendAndClose) }

func testSendAndClose(t *testing.T, in mode) {
	w := newWire(t, in)
	const message = "app.hits 1 1700000000\n"
	for i := range 50 {
		client := in.dial(t, "10.96.2.10:80")
		if _, err := client.Write([]byte(message)); err != nil {
			t.Fatal(err)
		}
		end := client.CloseWrite
		if i%2 == 1 {
			end = client.Close
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		server, err := w.server.accept(3 * time.Second)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		got, err := readAbout(server, len(message))
		if err != nil || got != message+"[EOF]" {
			t.Errorf("message %d: the server sees %q, %v", i, got, err)
		}
		_ = server.Close()
	}
}

// TestSeen: what Envoy asks for says what the first bytes of connections were, also to
// the next agent. A listener of class tcp doesn't look.
func TestSeen(t *testing.T) { bothModes(t, testSeen) }

func testSeen(t *testing.T, in mode) {
	w := newWire(t, in)
	frontend := netip.MustParseAddrPort(w.frontends[1])
	for _, step := range []struct {
		first string
		want  model.Seen
	}{
		{clientHello(t), model.Seen{TLS: true}},
		{"stats\r\n", model.Seen{TLS: true, Other: true}},
		{get11("/", ""), model.Seen{TLS: true, Other: true, HTTP: true}},
	} {
		p := w.open(t, w.frontends[1], step.first)
		p.expect(p.server, step.first)
		if got := w.fixture.server.Seen()[frontend]; got != step.want {
			t.Errorf("after %q: %+v, want %+v", step.first, got, step.want)
		}
	}
}

// clientHello is how a client of TLS begins.
func clientHello(t *testing.T) string {
	t.Helper()
	client, server := net.Pipe()
	handshake := make(chan error, 1)
	go func() { handshake <- tls.Client(client, &tls.Config{ServerName: "web"}).HandshakeContext(t.Context()) }()
	first := make([]byte, 8<<10)
	n, err := server.Read(first)
	if err := errors.Join(err, server.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-handshake; err == nil {
		t.Fatal("a handshake without a server succeeded")
	}
	return string(first[:n])
}
