// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/differential"
)

// endCase is an exchange in which one side ends the connection, and what both sides see
// of it through Envoy: bytes, and the end in brackets.
type endCase struct {
	name, why      string
	client, server []differential.Step
	got, seen      string
	// or is what they may see instead, by chance.
	or []sight
	// class is differential.HTTP if not set.
	class differential.Class
}

// sight is what a client got and a server saw.
type sight struct{ got, seen string }

// protocolError is Envoy's answer in place of a response that it doesn't take.
const protocolError = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 87\r\ncontent-type: text/plain\r\ndate: " + date + "\r\n\r\n" +
	"upstream connect error or disconnect/reset before headers. reset reason: protocol error"

func endCases() []endCase {
	send := func(text string) differential.Step { return differential.Step{Op: differential.Send, Data: text} }
	do := func(op differential.Op) differential.Step { return differential.Step{Op: op} }
	request := get11("/", "")
	await := []differential.Step{send(request), {Op: differential.AwaitEnd}}
	const begun = "HTTP/1.1 200 OK\r\nDate: x\r\n"
	const refused = "HTTP/1.1 403 No\r\nDate: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n"
	connect := "CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\n\r\n"
	return []endCase{
		{
			name:   "a body up to the end of the connection",
			why:    "the client's connection goes on, so that the end needs chunks",
			client: []differential.Step{send(request), {Op: differential.AwaitDone, N: 1}},
			server: []differential.Step{send("HTTP/1.0 200 OK\r\nDate: x\r\n\r\nhi"), do(differential.Close)},
			got:    begun + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n[open]", seen: request + "[open]",
		},
		{
			name:   "a reset in the body",
			why:    "Envoy closes the client's connection without one",
			client: await,
			server: []differential.Step{send(begun + "Content-Length: 3\r\n\r\nhi"), do(differential.AwaitPeer), do(differential.Reset)},
			got:    begun + "Content-Length: 3\r\n\r\nhi[closed]", seen: request + "[open]",
		},
		{
			name:   "no response",
			why:    "Envoy has to say something on a connection that may go on",
			client: []differential.Step{send(request), {Op: differential.AwaitDone, N: 1}},
			server: []differential.Step{do(differential.Close)},
			got:    strings.NewReplacer("502 Bad Gateway", "503 Service Unavailable", "length: 87", "length: 95", "protocol error", "connection termination").Replace(protocolError) + "[open]",
			seen:   request + "[open]",
		},
		{
			name:   "half a header",
			why:    "Envoy has to say something on a connection that may go on",
			client: []differential.Step{send(request), {Op: differential.AwaitDone, N: 1}},
			server: []differential.Step{send(begun), do(differential.Reset)},
			got:    protocolError + "[open]", seen: request + "[open]",
		},
		{
			name:   "half a request's header",
			why:    "Envoy passes on headers once they are complete",
			client: []differential.Step{send("GET / HTTP/1.1\r\nHost: web\r\n"), do(differential.Flush), do(differential.Close)},
			got:    "[open]", seen: "",
		},
		{
			name:   "a client's end after its request",
			why:    "Envoy takes it for the end of both directions",
			client: []differential.Step{send(request), do(differential.AwaitPeer), do(differential.CloseWrite), do(differential.AwaitEnd)},
			server: []differential.Step{do(differential.AwaitEnd), send(answer)},
			got:    "[closed]", seen: request + "[closed]",
		},
		{
			name:   "one side's end in a tunnel",
			why:    "Envoy takes it for the end of both directions",
			client: []differential.Step{send(connect), {Op: differential.AwaitDone, N: 1}, do(differential.CloseWrite), do(differential.AwaitEnd)},
			server: []differential.Step{send(begun + "\r\n"), do(differential.AwaitEnd), send("late")},
			got:    begun + "\r\n[closed]", seen: connect + "[closed]",
		},
		{
			name:   "a refused tunnel, with a body up to the end",
			why:    "Envoy closes both connections at once, and may do so before it has written the last chunk",
			client: []differential.Step{send(connect), {Op: differential.AwaitEnd}},
			server: []differential.Step{send("HTTP/1.1 403 No\r\nDate: x\r\n\r\nno"), do(differential.Close)},
			got:    refused + "0\r\n\r\n[closed]", seen: connect + "[open]",
			or: []sight{{refused + "[closed]", connect + "[open]"}},
		},
		{
			name:   "a request whose client closes at once",
			why:    "Envoy drops it unless it has a connection to the server by then",
			client: []differential.Step{send(request), do(differential.Close)},
			got:    "[open]", seen: "",
			or: []sight{{"[open]", request + "[closed]"}, {"[open]", request + "[reset]"}, {"[open]", "[open]"}, {"[open]", "[closed]"}},
		},
		{
			name:   "bytes before a reset",
			why:    "Envoy passes the reset on at once",
			class:  differential.TCP,
			client: []differential.Step{send("a"), {Op: differential.AwaitEnd}},
			server: []differential.Step{{Op: differential.AwaitBytes, N: 1}, send("b"), do(differential.Reset)},
			got:    "b[reset]", seen: "a[open]",
			or: []sight{{"[reset]", "a[open]"}},
		},
		{
			name:   "a reset at once",
			why:    "Envoy tries three times to connect, and takes it for a failure to",
			class:  differential.TCP,
			client: []differential.Step{do(differential.AwaitEnd)},
			server: []differential.Step{do(differential.Reset)},
			got:    "[reset]", seen: "[open]",
			or: []sight{{"[closed]", "[open][open][open]"}, {"[reset]", "[open][open]"}, {"[reset]", "[open][open][open]"}},
		},
	}
}

// TestEnds: what Envoy makes of connections that one side ends. It belongs to
// TestUnavoidable, whose cases have no ends.
func TestEnds(t *testing.T) { bothModes(t, testEnds) }

func testEnds(t *testing.T, in mode) {
	w := newWire(t, in)
	for _, c := range endCases() {
		t.Run(c.name, func(t *testing.T) { c.run(t, w) })
	}
}

// run plays the case, and several times if there is chance in it.
func (c endCase) run(t *testing.T, w *wire) {
	played := differential.Case{Class: differential.HTTP, Client: c.client, Replies: []differential.Reply{{When: differential.AfterRequest, Steps: c.server}}}
	times := 1
	if c.class == differential.TCP {
		reply := differential.Reply{When: differential.AtOnce, Steps: c.server}
		played.Class, played.Replies = c.class, []differential.Reply{reply, reply, reply, reply}
	}
	if len(c.or) > 0 {
		times = 3
	}
	allowed := append([]sight{{c.got, c.seen}}, c.or...)
	for range times {
		got := c.sight(w.play(t, played, func(got differential.Transcript) bool { return slices.Contains(allowed, c.sight(got)) }))
		if !slices.Contains(allowed, got) {
			t.Errorf("client and server see\n%q, want one of\n%q", got, allowed)
		}
	}
}

// sight is what a transcript shows.
func (c endCase) sight(t differential.Transcript) sight {
	out := sight{got: dateless(t.Client.Got, c.got) + "[" + string(t.Client.End) + "]"}
	for _, r := range t.Server {
		out.seen += r.Got + "[" + string(r.End) + "]"
	}
	return out
}

// play plays a case with the frontend of its class.
func (w *wire) play(t *testing.T, c differential.Case, settled func(differential.Transcript) bool) differential.Transcript {
	t.Helper()
	address := w.frontends[0]
	if c.Class == differential.TCP {
		address = "10.96.2.10:80"
	}
	got, err := differential.Run(t.Context(), c, w.mode.path(w.server, address, 2*time.Second), settled)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// path leads from a caller to an address, whose server is this one.
func (m mode) path(server *rawServer, address string, patience time.Duration) differential.Path {
	return differential.Path{
		Listener: server.listener.(*net.TCPListener), Patience: patience,
		Dial: func(ctx context.Context) (*net.TCPConn, error) {
			conn, err := m.DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			return conn.(*net.TCPConn), nil
		},
	}
}

// TestRefusedUpgradeAfterAnother: a server that doesn't take up an upgrade, which the
// client has sent behind another request, ends neither Envoy nor the exchange.
func TestRefusedUpgradeAfterAnother(t *testing.T) { bothModes(t, testRefusedUpgradeAfterAnother) }

func testRefusedUpgradeAfterAnother(t *testing.T, in mode) {
	w := newWire(t, in)
	send := func(text string) []differential.Step { return []differential.Step{{Op: differential.Send, Data: text}} }
	c := differential.Case{
		Class: differential.HTTP,
		Client: append(send("PUT / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+get11("/", "Connection: Upgrade\r\nUpgrade: mine/2\r\n")),
			differential.Step{Op: differential.AwaitDone, N: 2}),
		Replies: []differential.Reply{
			{When: differential.AfterRequest, Steps: send("HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n")},
			{When: differential.AfterRequest, Steps: send("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi")},
		},
	}
	for range 3 {
		got := w.play(t, c, func(differential.Transcript) bool { return true })
		if !strings.HasSuffix(got.Client.Got, "\r\n\r\nhi") {
			t.Errorf("the client sees %v", got)
		}
	}
}

// TestUpgradedConnectionEnds: a client that waits for the server to end an upgraded
// connection, as some of WebSockets do, waits a second longer: Envoy's delayed_close_timeout.
// If it were shorter, clients that don't read for as long would lose the end of an answer,
// and without it, those that still send could lose an early one.
func TestUpgradedConnectionEnds(t *testing.T) { bothModes(t, testUpgradedConnectionEnds) }

func testUpgradedConnectionEnds(t *testing.T, in mode) {
	w := newWire(t, in)
	request := get11("/", "Connection: Upgrade\r\nUpgrade: websocket\r\n")
	p := w.open(t, w.frontends[0], request)
	p.expect(p.server, request)
	response := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nDate: x\r\n\r\n"
	p.send(p.server, response)
	p.expect(p.client, response)
	p.send(p.server, "bye")
	if err := p.server.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	p.expect(p.client, "bye")
	p.ends(p.client)
	if took := time.Since(start); took < 900*time.Millisecond {
		t.Errorf("the client sees the end after %v, want Envoy's delay of a second", took)
	}
}
