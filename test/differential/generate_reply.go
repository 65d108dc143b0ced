// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"strings"
)

// reply makes the answer to a request, with so many responses of status 1xx before it.
func (g *generator) reply(q *request, interim int) Reply {
	r := Reply{When: AfterRequest}
	for i := range interim {
		code := pick(g, "102 Processing", "103 Early Hints", "103 Early Hints", "100 Continue")
		if q.expect && i == 0 {
			r.When, code = AfterHead, "100 Continue"
		}
		head := []string{"HTTP/1.1 " + code + "\r\n"}
		if strings.HasPrefix(code, "103") {
			head = append(head, "Link: </a.css>; rel=preload\r\n")
		}
		r.Steps = append(r.Steps, g.send(append(head, "\r\n")...)...)
	}
	switch {
	case q.expect:
		r.Steps = append(r.Steps, Step{Op: AwaitRequest})
	case q.agreed:
		return g.agree(q, r)
	case q.last && g.chance(2):
		r.When = AfterHead
	}
	return g.final(q, r)
}

// agree makes the server speak another protocol from here on.
func (g *generator) agree(q *request, r Reply) Reply {
	head := []string{"HTTP/1.1 101 Switching Protocols\r\n"}
	fields := g.fields(responseFields())
	if q.method == "CONNECT" {
		head = []string{"HTTP/1.1 200 " + pick(g, "OK", "Connection established") + "\r\n"}
	} else {
		fields = append(fields, "Connection: Upgrade", "Upgrade: "+pick(g, "websocket", "tcp", "mine/2"))
	}
	r.Steps = append(r.Steps, g.send(append(head, g.lines(fields, "\r\n")...)...)...)
	r.Steps = append(r.Steps, g.send(g.text(g.size()))...)
	return r
}

// final makes the response itself.
func (g *generator) final(q *request, r Reply) Reply {
	status := pick(g, "200 OK", "200 OK", "200 OK", "200 Fine", "200 ", "200", "201 Created", "204 No Content", "206 Partial Content", "301 Moved", "304 Not Modified",
		"400 Bad", "401 No", "404 Not Found", "418 I'm a teapot", "426 Upgrade Required", "500 Internal Server Error", "503 Busy", "599 x", "777 y")
	if q.method == "CONNECT" {
		status = "403 No"
	}
	version := "HTTP/1.1"
	if q.last && g.chance(12) {
		version = "HTTP/1.0"
	}
	fields := g.fields(responseFields())
	if g.chance(75) {
		fields = append(fields, pick(g, "Date: Sun, 06 Nov 1994 08:49:37 GMT", "date: x"))
	}
	without := q.method == "HEAD" || strings.HasPrefix(status, "204") || strings.HasPrefix(status, "304")
	framing, body := g.body(version == "HTTP/1.1" && q.version == "HTTP/1.1", false)
	closes := q.closes
	switch {
	case without:
		body = nil
		if g.chance(60) || strings.HasPrefix(status, "204") && strings.HasPrefix(strings.ToLower(framing), "transfer") {
			framing = pick(g, "", "", "", "", "Content-Length: 0")
		}
	case framing == "" && q.last:
		body, closes = []string{g.text(g.size())}, true
	case framing == "":
		framing = "Content-Length: 0"
	}
	if framing != "" {
		fields = append(fields, framing)
	}
	if closes && g.chance(80) {
		fields = append(fields, "Connection: close")
	} else if g.chance(10) {
		fields = append(fields, pick(g, "Connection: keep-alive", "Connection: X-Hop", "Connection: Upgrade", "Proxy-Connection: keep-alive"))
	}
	head := append([]string{fmt.Sprintf("%s %s\r\n", version, status)}, g.lines(fields, "\r\n")...)
	r.Steps = append(r.Steps, g.send(append(head, body...)...)...)
	if r.When == AfterHead {
		r.Steps = append(r.Steps, Step{Op: AwaitRequest})
	}
	if closes {
		r.Steps = append(r.Steps, Step{Op: pick(g, Close, CloseWrite)})
	}
	return r
}

func responseFields() []string {
	return []string{
		"Server: x", "server: y", "X-Foo: 1", "x-BAR: 2", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2", "set-cookie: c=3", "Vary: a", "Vary: B", "vary: c", "ETag: \"x\"", "Via: 1.1 z",
		"Content-Type: text/html", "Content-Encoding: gzip", "Keep-Alive: timeout=5", "X-Y: \xc3\xa9\xff", "X-Empty:", "X-Dup: 1", "x-dup: 2", "X-Dup:   3  ", "X-Hop: 1",
		"Location: /y", "Link: </a>; rel=next", "Link: </b>; rel=prev", "WWW-Authenticate: Basic realm=\"a\"", "WWW-Authenticate: Negotiate", "Retry-After: 1", "Trailer: x-t", "Upgrade: h2c",
		"x-envoy-upstream-service-time: 7", "x-envoy-overloaded: true", "Cache-Control: no-store", "Cache-Control: max-age=1", "Expires: 0", "Allow: GET", "Allow: HEAD", "Alt-Svc: h3=\":443\"",
		"Access-Control-Allow-Origin: *", "Accept-Ranges: bytes", "X-Fold: a\r\n b", "Proxy-Authenticate: x", "grpc-status: 0", "X-Request-Id: q", "!#$%&'*+-.^_`|~: token", "Content-Language: de",
	}
}
