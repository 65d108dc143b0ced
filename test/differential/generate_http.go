// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"slices"
	"strings"
)

// request is what the generator has decided on for one.
type request struct {
	method, target, version string
	expect                  bool
	// upgrade is set for offers to speak another protocol, agreed for those that the
	// server takes.
	upgrade, agreed bool
	// last is set for the last on the connection, and closes if the client says so.
	last, closes bool
}

// http makes requests on one connection, and their replies.
func (g *generator) http(c *Case) {
	n := pick(g, 1, 1, 1, 2, 3, 4)
	pipelined := g.chance(30)
	for i := range n {
		q := request{last: i == n-1, version: "HTTP/1.1"}
		g.shape(&q, n == 1)
		head, body := g.message(&q)
		interim := g.IntN(3)
		if g.chance(70) || q.version == "HTTP/1.0" {
			interim = 0
		}
		c.Client = append(c.Client, g.send(head...)...)
		if q.expect {
			interim = max(interim, 1)
			c.Client = append(c.Client, Step{Op: AwaitHead, N: i + 1})
		}
		c.Client = append(c.Client, g.send(body...)...)
		c.Replies = append(c.Replies, g.reply(&q, interim))
		if !pipelined || q.last {
			c.Client = append(c.Client, Step{Op: AwaitDone, N: i + 1})
		}
		if q.agreed {
			g.tunnel(c)
			return
		}
	}
	g.httpEnd(c, pipelined && n > 1)
}

// tunnel goes on after the server has agreed to speak another protocol.
func (g *generator) tunnel(c *Case) {
	client, server := &c.Client, &c.Replies[len(c.Replies)-1].Steps
	*client = append(*client, g.send(g.text(g.size()))...)
	if g.chance(50) {
		client, server = server, client
	}
	g.rawEnd(client, server)
}

// httpEnd makes some exchanges end early, or oddly.
func (g *generator) httpEnd(c *Case, pipelined bool) {
	reply := &c.Replies[len(c.Replies)-1].Steps
	last := len(c.Client) - 1
	if c.Client[last].Op != AwaitDone || slices.ContainsFunc(*reply, func(s Step) bool { return s.Op == AwaitRequest }) {
		return
	}
	switch n := g.IntN(100); {
	case n < 3: // The server ends in the middle, or before it answers.
		*reply = append((*reply)[:g.IntN(len(*reply)+1)], Step{Op: AwaitPeer}, Step{Op: pick(g, Close, Reset)})
	case n < 5 && len(c.Replies) == 1: // So does the client.
		c.Unread = true
		c.Client = append(c.Client[:1+g.IntN(len(c.Client))], Step{Op: AwaitPeer}, Step{Op: pick(g, Close, Reset)})
	case n < 6 && len(c.Replies) == 1: // It may also be in a hurry.
		c.Unread = true
		c.Client[last] = Step{Op: Close}
	case n < 8 && !pipelined: // The client says that it sends no more, and waits.
		c.Client = append(c.Client[:last:last], Step{Op: CloseWrite}, c.Client[last])
	case n < 20: // The server closes the connection though nobody says so.
		*reply = append(*reply, Step{Op: pick(g, Close, CloseWrite)})
	case n < 30 && (*reply)[len(*reply)-1].Op == Send:
		c.Client = append(c.Client, Step{Op: Close})
	}
}

// shape decides what kind of request it is.
func (g *generator) shape(q *request, only bool) {
	q.method = pick(g, "GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "BREW", "TRACE")
	q.target = pick(g, "/", "/", "/a/b?c=d&e", "//a/./b/../c//", "/c%2fd%00%zz", "/a?x=//y/../z;q=1&&=%20+?/", "/|{}\"<>^`[]$!*'(),;:@~",
		"/"+strings.Repeat("p", g.size()/10), "/?", "/%C3%A9", "/x;y=z", "/:80", "/*")
	switch {
	case g.chance(4):
		q.target = pick(g, "http://other.example/x?y", "http://web:81/", "HTTP://WEB/x", "https://web/x", "http://u:p@web/x")
	case only && g.chance(3): // The server's replies to others would be to them.
		q.target = pick(g, "http://web?q", "ftp://web/x")
	case only && g.chance(2):
		q.method, q.target = "OPTIONS", pick(g, "*", "http://web")
	}
	if only && g.chance(12) {
		q.version = "HTTP/1.0"
	}
	if q.last && q.version == "HTTP/1.1" && g.chance(7) {
		q.upgrade = true
		if g.chance(25) {
			q.method, q.target = "CONNECT", "web:443"
		}
	}
	q.closes = q.last && !q.upgrade && (g.chance(15) || q.version == "HTTP/1.0")
}

// message makes the head and the body of a request, in pieces.
func (g *generator) message(q *request) (head, body []string) {
	end := "\r\n"
	if g.chance(3) {
		end = "\n"
	}
	if g.chance(2) {
		head = append(head, end)
	}
	head = append(head, q.method+" "+q.target+" "+q.version+end)
	var fields []string
	if q.version == "HTTP/1.1" || g.chance(60) {
		fields = append(fields, pick(g, "Host: web", "Host: web", "Host: web:80", "host: WEB", "Host:web ", "HOST: u@web", "Host: [::1]:80", "Host: "+q.authority()))
	}
	fields = append(fields, g.fields(requestFields())...)
	token := pick(g, "websocket", "WebSocket", "SPDY/3.1", "tcp", "mine/2", "h2c", "TLS/1.2")
	q.agreed = q.upgrade && g.chance(75) && (q.method == "CONNECT" || token != "h2c" && token != "TLS/1.2")
	switch {
	case q.upgrade && q.method != "CONNECT":
		fields = append(fields, pick(g, "Connection: Upgrade", "Connection: upgrade", "Connection: keep-alive, Upgrade"), "Upgrade: "+token)
	case q.closes && q.version == "HTTP/1.1":
		fields = append(fields, pick(g, "Connection: close", "connection: Close", "Connection: close, X-Hop"))
	case g.chance(15):
		some := []string{"Connection: keep-alive", "Connection: Keep-Alive, X-Hop", "Proxy-Connection: keep-alive"}
		if q.version == "HTTP/1.1" {
			some = append(some, "Connection: X-Hop", "Connection: TE")
		}
		fields = append(fields, pick(g, some...))
		q.closes = q.closes && !strings.Contains(strings.ToLower(fields[len(fields)-1]), "keep-alive")
	}
	if q.method != "CONNECT" && q.method != "TRACE" && (!q.upgrade || !strings.EqualFold(token, "websocket")) {
		var framing string
		framing, body = g.body(q.version == "HTTP/1.1" && !q.upgrade, bodyless(q.method))
		if framing != "" {
			fields = append(fields, framing)
		}
	}
	if len(body) > 0 && q.version == "HTTP/1.1" && !q.upgrade && g.chance(15) {
		fields, q.expect = append(fields, "Expect: 100-continue"), true
	}
	return append(head, g.lines(fields, end)...), body
}

func (q *request) authority() string {
	if _, rest, ok := strings.Cut(q.target, "://"); ok {
		name, _, _ := strings.Cut(rest, "/")
		return name
	}
	return "web"
}

// bodyless says whether requests of this method seldom have a body.
func bodyless(method string) bool {
	return method == "GET" || method == "HEAD" || method == "DELETE" || method == "OPTIONS"
}

// lines puts the fields in random order, and the end after them.
func (g *generator) lines(fields []string, end string) []string {
	g.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	out := make([]string, 0, len(fields)+1)
	for _, f := range fields {
		out = append(out, f+end)
	}
	return append(out, end)
}

// body is framed by chunks or by a length, or there is none.
func (g *generator) body(mayChunk, seldom bool) (framing string, body []string) {
	if g.chance(20) || seldom && g.chance(80) {
		return "", nil
	}
	if !mayChunk || g.chance(50) {
		text := g.text(g.size())
		return fmt.Sprintf("%s: %d", pick(g, "Content-Length", "content-length", "CONTENT-LENGTH"), len(text)), []string{text}
	}
	for range g.IntN(4) {
		text := g.text(1 + g.size())
		body = append(body, fmt.Sprintf(pick(g, "%x", "%x", "%X", "00%x", "%x;ext", "%x;a=b;c=\"d\"", "%x ;x=1")+"\r\n%s\r\n", len(text), text))
	}
	body = append(body, pick(g, "0", "0", "000", "0;last")+"\r\n")
	if g.chance(20) {
		body = append(body, pick(g, "X-Trailer: v\r\n", "x-t: 1\r\nX-T: 2\r\n", "Grpc-Status: 0\r\n", "X-E:\r\n", "Digest:  a \r\n"))
	}
	return pick(g, "Transfer-Encoding: chunked", "transfer-encoding: chunked", "Transfer-Encoding: Chunked"), append(body, "\r\n")
}

// fields are some of those given.
func (g *generator) fields(from []string) []string {
	var out []string
	for range g.IntN(6) {
		out = append(out, pick(g, from...))
	}
	if g.chance(3) {
		out = append(out, "X-Long: "+strings.Repeat("v", 1+g.IntN(20_000)))
	}
	return out
}

func requestFields() []string {
	return []string{
		"User-Agent: x", "X-Foo: 1", "x-BAR: 2", "ACCEPT: */*", "Accept: text/html", "x_under: 1", "a: b", "Z-Last:\tz\t", "Cookie: a=1", "cookie: b=2",
		"X-Y: \xc3\xa9\xff", "X-Empty:", "X-Empty: ", "X-Dup: 1", "x-dup: 2", "X-Dup:   3  ", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https",
		"X-Forwarded-Host: h", "Forwarded: for=x", "Via: 1.1 foo", "X-Request-Id: abc", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"x-envoy-upstream-rq-timeout-ms: 1", "x-envoy-retry-on: 5xx", "x-envoy-internal: true", "Authorization: Basic x", "Proxy-Authorization: y",
		"Range: bytes=0-1", "If-None-Match: \"x\"", "grpc-timeout: 1m", "TE: trailers", "TE: deflate", "Keep-Alive: timeout=5", "X-Hop: 1", "Accept-Encoding: gzip, br",
		"Content-Type: text/plain; charset=utf-8", "Trailer: x-t", "Max-Forwards: 1", "Origin: http://x", "X-Fold: a\r\n b", "X-Quote: \"a, b\"", "x-nodevoy-destination: 1.2.3.4:5",
		"Pragma: no-cache", "Cache-Control: no-cache", "Cache-Control: max-age=0", "Date: x", "Expires: 0", "!#$%&'*+-.^_`|~: token", "X-Colon: a:b: c", "Referer: http://x/#y",
	}
}
