// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"testing"
	"time"
)

// rewrittenStatuses are differences in what answers are, for TestUnavoidable.
func rewrittenStatuses() []wireCase {
	q := get11("/", "")
	websocket := get11("/", "Connection: Upgrade\r\nUpgrade: websocket\r\n")
	const ok = "HTTP/1.1 200 OK\r\nDate: x\r\n"
	chunks := "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
	return []wireCase{
		{name: "204 with a length of 0", why: "RFC 9110 wants none", request: q, response: "HTTP/1.1 204 No Content\r\nDate: x\r\nContent-Length: 0\r\n\r\n", got: "HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n"},
		{name: "304 with chunks", why: "it has no body", request: q, response: "HTTP/1.1 304 Not Modified\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n", got: "HTTP/1.1 304 Not Modified\r\nDate: x\r\n\r\n"},
		{name: "an empty reason", why: "Envoy writes the usual one", request: q, response: "HTTP/1.1 200 \r\nDate: x\r\nContent-Length: 2\r\n\r\nhi", got: ok + "Content-Length: 2\r\n\r\nhi"},
		{name: "no reason", why: "Envoy writes the usual one", request: q, response: "HTTP/1.1 404\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi", got: "HTTP/1.1 404 Not Found\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi"},
		{name: "an answer of HTTP/1.0", why: "Envoy speaks HTTP/1.1 to such clients", request: q, response: "HTTP/1.0 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi", got: ok + "Content-Length: 2\r\n\r\nhi"},
		{name: "chunks and a length", why: "the length counts for nothing, RFC 9112 says", request: q, response: ok + "Content-Length: 9\r\n" + chunks, got: ok + chunks},
		{name: "an offer to upgrade", why: "it is about one connection, and there are two", request: q, response: ok + "Upgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nhi", got: ok + "Content-Length: 2\r\n\r\nhi"},
		{name: "an upgrade required", why: "it is about one connection, and there are two", request: q, response: "HTTP/1.1 426 Upgrade Required\r\nDate: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nhi", got: "HTTP/1.1 426 Upgrade Required\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi"},
		{name: "several interim answers", why: "Envoy passes on the first", request: q, response: "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: b\r\n\r\n" + answer, got: "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + answer},
		{name: "other interim answers", why: "Envoy knows 100, 102 and 103", request: q, response: "HTTP/1.1 199 Odd\r\n\r\n" + answer, got: answer},
		{name: "an upgrade to websocket ignored", why: "Envoy takes only 101, or 400 and above, for an answer to it", request: websocket, response: answer, got: "HTTP/1.1 200 OK\r\ndate: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"},
		{name: "a header on two lines, in an answer", why: "RFC 9112 wants it joined by a space", request: q, response: ok + "A: b\r\n c\r\nContent-Length: 2\r\n\r\nhi", got: ok + "A: b c\r\nContent-Length: 2\r\n\r\nhi"},
	}
}

// refusedResponses are answered with 502: most are against RFC 9110 or 9112, but
// common clients take them.
func refusedResponses() []wireCase {
	const ok = "HTTP/1.1 200 OK\r\nDate: x\r\n"
	const got = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 87\r\ncontent-type: text/plain\r\ndate: " + date +
		"\r\n\r\nupstream connect error or disconnect/reset before headers. reset reason: protocol error"
	var cases []wireCase
	for name, response := range map[string]string{
		"one length, twice":                 ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
		"a list of lengths":                 ok + "Content-Length: 2, 2\r\n\r\nhi",
		"an empty length":                   ok + "Content-Length:\r\n\r\n",
		"a length with a sign":              ok + "Content-Length: +2\r\n\r\nhi",
		"204 with a length":                 "HTTP/1.1 204 No Content\r\nDate: x\r\nContent-Length: 2\r\n\r\n",
		"204 with chunks":                   "HTTP/1.1 204 No Content\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"transfer-encoding identity":        ok + "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nhi",
		"transfer-encoding gzip, chunked":   ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"transfer-encoding, twice":          ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"a space before the colon":          ok + "A : b\r\nContent-Length: 2\r\n\r\nhi",
		"a space in a name":                 ok + "A B: c\r\nContent-Length: 2\r\n\r\nhi",
		"no name":                           ok + ": a\r\nContent-Length: 2\r\n\r\nhi",
		"no colon":                          ok + "a b c\r\nContent-Length: 2\r\n\r\nhi",
		"control bytes in a value":          ok + "A: b\x01c\r\nContent-Length: 2\r\n\r\nhi",
		"another protocol, as of Shoutcast": "ICY 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/0.9":                          "hello\r\n",
	} {
		cases = append(cases, wireCase{name: "response: " + name, why: "Envoy's parser refuses it", request: get11("/", ""), response: response, got: got})
	}
	return cases
}

// TestCutOffResponse: an answer that the server breaks off ends without its end, but
// later, and without a reset; one that only the server's close ends seems whole.
func TestCutOffResponse(t *testing.T) { bothModes(t, testCutOffResponse) }

func testCutOffResponse(t *testing.T, in mode) {
	w := newWire(t, in)
	for _, c := range []struct{ name, body, got string }{
		{"with a length", "Content-Length: 9\r\n\r\nhi", "Content-Length: 9\r\n\r\nhi"},
		{"in chunks", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"},
		{"until the close", "\r\nhi", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"},
	} {
		p := w.open(t, w.frontends[0], get11("/", ""))
		p.expect(p.server, get11("/", ""))
		p.send(p.server, "HTTP/1.1 200 OK\r\nDate: x\r\n"+c.body)
		p.expect(p.client, "HTTP/1.1 200 OK\r\nDate: x\r\n"+c.got)
		if err := p.server.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		_ = p.server.Close()
		if c.body == "\r\nhi" {
			p.expect(p.client, "0\r\n\r\n")
			continue
		}
		start := time.Now()
		p.ends(p.client)
		if took := time.Since(start); took < 900*time.Millisecond {
			t.Errorf("%s: the end comes after %v, want Envoy's delay of a second", c.name, took)
		}
	}
}
