// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// wireCase is one request and its answer, as bytes. Seen and got are what the
// other side receives, where that is not what was sent; why says why, and that
// nothing can be done about it.
type wireCase struct {
	name              string
	request, response string
	seen, got         string
	why               string
	// declared is set if this is so only where HTTP was declared: the detect
	// listener passes on the bytes of what it finds not to be HTTP.
	declared bool
}

// date stands for the value of a Date header that Envoy made.
const date = "Sat, 01 Jan 2000 00:00:00 GMT"

// answer is a response nothing about which matters.
const answer = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi"

// run makes the exchange through Envoy, on the http and on the detect
// listener, and straight, and compares.
func (c wireCase) run(t *testing.T, w *wire) {
	seen, got := c.request, c.response
	if c.seen != "" {
		seen = c.seen
	}
	if c.got != "" {
		got = c.got
	}
	e := exchange{from: w.mode, request: c.request, response: c.response, wantSeen: len(seen), wantGot: len(got), unseen: seen == nobody}
	frontends := w.frontends
	if c.declared {
		frontends = frontends[:1]
	}
	for _, address := range frontends {
		gotSeen, gotGot := e.over(t, address, w.server, w.drained)
		if gotSeen != seen {
			t.Errorf("%s: the server sees\n%q, want\n%q", address, gotSeen, seen)
		}
		if normal := dateless(gotGot, got); normal != got {
			t.Errorf("%s: the client sees\n%q, want\n%q", address, normal, got)
		}
	}
	if c.why != "" {
		return
	}
	// What nothing is to be changed about arrives as it would without Envoy.
	e.wantSeen, e.wantGot = len(c.request), len(c.response)
	if s, g := e.over(t, w.server.address(), w.server, func() {}); s != c.request || g != c.response {
		t.Errorf("straight: the server sees\n%q, the client\n%q", s, g)
	}
}

// dateless writes the fixed date for the one Envoy made, if want has it.
func dateless(got, want string) string {
	for _, key := range []string{"\r\nDate: ", "\r\ndate: "} {
		head, rest, ok := strings.Cut(got, key)
		if ok && len(rest) > len(date) && strings.Contains(want, key+date) {
			return head + key + date + rest[len(date):]
		}
	}
	return got
}

// wire is a raw server, and frontends that lead to it.
type wire struct {
	mode      mode
	server    *rawServer
	frontends []string
	drained   func()
	fixture   *fixture
}

func newWire(t *testing.T, in mode) *wire {
	t.Helper()
	return newWires(t, in, 1)[0]
}

// newWires are several on one Envoy, to be used at a time.
func newWires(t *testing.T, in mode, n int) []*wire {
	t.Helper()
	in.idle = 50 * time.Millisecond // Each case waits for the end of the connections before it.
	var all []*wire
	var services []service
	for i := range n {
		w := &wire{mode: in, server: newRawServer(t, fmt.Sprintf("10.244.0.%d:8080", i+1))}
		names := []string{"web", "auto", "raw"}
		for class, name := range names {
			if i > 0 {
				names[class] = fmt.Sprint(name, i)
			}
			front := fmt.Sprintf("10.96.%d.%d:80", []int{1, 3, 2}[class], i+10)
			services = append(services, service{names[class], front, []string{w.server.address()}})
			w.frontends = append(w.frontends, front)
		}
		w.frontends = w.frontends[:2]
		// Envoy keeps connections; the next case wants one of its own.
		w.drained = func() {
			eventually(t, 5*time.Second, func() error {
				for _, name := range names[:2] {
					if n := w.fixture.stat("cluster.shop/" + name + "/main.upstream_cx_active"); n > 0 {
						return fmt.Errorf("%d connections to %s", n, name)
					}
				}
				return nil
			})
		}
		all = append(all, w)
	}
	fixture := in.fixture(t, nodeOf(t, services...))
	for _, w := range all {
		w.fixture = fixture
	}
	return all
}

// runWireCases runs cases, which mostly wait, a few at a time.
func runWireCases(t *testing.T, in mode, cases ...[]wireCase) {
	t.Helper()
	const atATime = 4
	parts := make([][]wireCase, atATime)
	for i, c := range slices.Concat(cases...) {
		if strings.Contains(c.seen, "10.96.1.10") {
			i = 0 // The address that the client calls.
		}
		parts[i%atATime] = append(parts[i%atATime], c)
	}
	for i, w := range newWires(t, in, atATime) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			// A Service's first request is another matter: see first_test.go.
			wireCase{request: get11("/", ""), response: answer}.run(t, w)
			for _, c := range parts[i] {
				t.Run(c.name, func(t *testing.T) { c.run(t, w) })
			}
		})
	}
}

// TestTransparency: what must arrive byte for byte, in both directions.
func TestTransparency(t *testing.T) { bothModes(t, testTransparency) }

func testTransparency(t *testing.T, in mode) {
	runWireCases(t, in, requestCases(), pathCases(), bodyCases(), responseCases(), upgradeCases())
}

// TestUnavoidable: the differences Envoy does make. This is the whole list
// that is known; each has its reason.
func TestUnavoidable(t *testing.T) { bothModes(t, testUnavoidable) }

func testUnavoidable(t *testing.T, in mode) {
	runWireCases(t, in, rewrittenRequests(), rewrittenTargets(), rewrittenResponses(), rewrittenStatuses(),
		refusedRequests(), refusedTargets(), refusedResponses())
}

func get11(path, headers string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: web\r\n" + headers + "\r\n"
}

func requestCases() []wireCase {
	return []wireCase{
		{name: "order and case of headers", request: get11("/", "User-Agent: x\r\nX-Foo: 1\r\nx-BAR: 2\r\nACCEPT: */*\r\nx_under: 1\r\na: b\r\nZ-Last: z\r\n"), response: answer},
		{name: "host with port and case", request: "GET / HTTP/1.1\r\nHOST: WeB.Shop:80\r\nA: b\r\n\r\n", response: answer},
		{name: "host with user", request: "GET / HTTP/1.1\r\nHost: u@web\r\n\r\n", response: answer},
		{name: "nothing but host", request: get11("/", ""), response: answer},
		{name: "forwarding headers of the client", request: get11("/", "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\nX-Forwarded-Port: 3\r\nForwarded: for=x\r\nVia: 1.1 foo\r\nX-Real-Ip: 9.9.9.9\r\nX-Forwarded-Client-Cert: Hash=1\r\n"), response: answer},
		{name: "only x-forwarded-for", request: get11("/", "X-Forwarded-For: 10.1.2.3, 1.2.3.4\r\n"), response: answer},
		{name: "tracing headers of the client", request: get11("/", "X-Request-Id: abc\r\nX-Client-Trace-Id: q\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX-B3-Sampled: 1\r\n"), response: answer},
		{name: "a real uuid as request id", request: get11("/", "X-Request-Id: 6ba7b810-9dad-41d1-80b4-00c04fd430c8\r\n"), response: answer},
		{name: "headers that Envoy acts on by default", request: get11("/", "x-envoy-upstream-rq-timeout-ms: 1\r\nx-envoy-internal: true\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 9\r\nX-Envoy-Upstream-Alt-Stat-Name: foo\r\nx-envoy-decorator-operation: x\r\nx-envoy-force-trace: true\r\nx-envoy-hedge-on-per-try-timeout: true\r\nX-Envoy-Expected-Rq-Timeout-Ms: 1\r\nx-envoy-attempt-count: 7\r\nx-envoy-original-path: /y\r\n"), response: answer},
		{name: "cookies and repeated headers", request: get11("/", "Cookie: a=1\r\nCookie: b=2\r\nX-Dup: 1\r\nY: 1\r\nX-Dup: 2\r\n"), response: answer},
		{name: "credentials", request: get11("/", "Authorization: Basic x\r\nProxy-Authorization: y\r\n"), response: answer},
		{name: "bytes that are not ASCII", request: get11("/", "X-Y: \xc3\xa9\xff\r\n"), response: answer},
		{name: "odd methods", request: "PROPFIND / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n", response: answer},
		{name: "unheard-of methods", request: "BREW / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n", response: answer},
		{name: "trace", request: "TRACE / HTTP/1.1\r\nHost: web\r\nMax-Forwards: 1\r\n\r\n", response: answer},
		{name: "range and conditions", request: get11("/", "Range: bytes=0-1\r\nIf-None-Match: \"x\"\r\nIf-Modified-Since: x\r\n"), response: answer},
		{name: "grpc-timeout", request: get11("/", "grpc-timeout: 1m\r\n"), response: answer},
		{name: "a large header", request: get11("/", "X-Large: "+strings.Repeat("x", 100<<10)+"\r\n"), response: answer},
		{name: "hundreds of headers", request: get11("/", manyHeaders(900)), response: answer},
	}
}

func manyHeaders(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-Header-%d: value-%d\r\n", i, i)
	}
	return b.String()
}

func pathCases() []wireCase {
	return []wireCase{
		{name: "dots and slashes", request: get11("//a/./b/../c//", ""), response: answer},
		{name: "escapes", request: get11("/c%2fd%2F%41%00%5c%zz\\x", ""), response: answer},
		{name: "query", request: get11("/a?x=//y/../z;q=1&&=%20+?/", ""), response: answer},
		{name: "odd characters", request: get11("/|{}\"<>^`[]$!*'(),;:@~", ""), response: answer},
		{name: "a long path", request: get11("/"+strings.Repeat("p", 60<<10), ""), response: answer},
		{name: "absolute URL, as for a proxy", request: "GET http://other.example:81/x?y HTTP/1.1\r\nHost: other.example:81\r\nA: b\r\n\r\n", response: answer},
		{name: "absolute URL of the root", request: "GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n", response: answer},
		{name: "absolute URL of https", request: "GET https://other.example:443/x HTTP/1.1\r\nHost: other.example:443\r\n\r\n", response: answer},
		{name: "absolute URL and a forwarded protocol", request: "POST https://o/x HTTP/1.1\r\nHost: o\r\nX-Forwarded-Proto: q\r\nContent-Length: 2\r\n\r\nhi", response: answer},
		{name: "options", request: "OPTIONS / HTTP/1.1\r\nHost: web\r\nOrigin: x\r\nAccess-Control-Request-Method: GET\r\nContent-Length: 0\r\n\r\n", response: answer},
		{name: "health checks", request: get11("/healthz", "User-Agent: kube-probe/1.31\r\n"), response: answer},
	}
}

func bodyCases() []wireCase {
	const post = "POST / HTTP/1.1\r\nHost: web\r\n"
	return []wireCase{
		{name: "body", request: post + "Content-Length: 3\r\nX-A: b\r\n\r\nabc", response: answer},
		{name: "empty body", request: post + "Content-Length: 0\r\n\r\n", response: answer},
		{name: "get with a body", request: "GET / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc", response: answer},
		{name: "delete", request: "DELETE / HTTP/1.1\r\nHost: web\r\n\r\n", response: answer},
		{name: "chunks", request: post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", response: answer},
		{name: "chunks and trailers", request: post + "Trailer: x-t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: v\r\n\r\n", response: "HTTP/1.1 200 OK\r\nTrailer: x-u\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-u: v\r\n\r\n"},
		// Envoy takes none for a header: the request goes where it was sent.
		{name: "trailers named as headers", request: post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nhost: evil\r\ncontent-length: 7\r\nx-nodevoy-envoy-external-address: 10.96.1.99:80\r\n\r\n", response: answer},
		{name: "content encoding", request: post + "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x00", response: answer},
	}
}

func responseCases() []wireCase {
	q := get11("/", "")
	return []wireCase{
		{name: "order and case of response headers", request: q, response: "HTTP/1.1 200 OK\r\nX-B: 1\r\ndATE: x\r\ncOnTent-LengtH: 2\r\na-b: 2\r\nx_y: \xff\r\n\r\nhi"},
		{name: "server, via and the like", request: q, response: "HTTP/1.1 200 OK\r\nServer: mine\r\nVia: q\r\nDate: yesterday\r\nX-Powered-By: z\r\nX-Request-Id: r\r\nStrict-Transport-Security: s\r\nContent-Length: 2\r\n\r\nhi"},
		{name: "headers of another Envoy", request: q, response: "HTTP/1.1 200 OK\r\nServer: envoy\r\nx-envoy-foo: 1\r\nx-envoy-upstream-service-time: 4\r\nx-envoy-ratelimited: true\r\nx-envoy-overloaded: true\r\nx-envoy-immediate-health-check-fail: true\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi"},
		{name: "reason phrase", request: q, response: "HTTP/1.1 299 Very Odd Thing\r\nDate: x\r\nContent-Length: 0\r\n\r\n"},
		{name: "repeated response headers", request: q, response: "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nX-Dup: a\r\nX-Dup: b\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi"},
		{name: "head", request: "HEAD / HTTP/1.1\r\nHost: web\r\n\r\n", response: "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 12345\r\n\r\n"},
		{name: "no content", request: q, response: "HTTP/1.1 204 No Content\r\nX: y\r\nDate: x\r\n\r\n"},
		{name: "not modified", request: q, response: "HTTP/1.1 304 Not Modified\r\nDate: x\r\nContent-Length: 77\r\nETag: \"x\"\r\n\r\n"},
		{name: "redirect", request: q, response: "HTTP/1.1 302 Found\r\nLocation: //x/../y?z\r\nDate: x\r\nContent-Length: 0\r\n\r\n"},
		{name: "errors of the server", request: q, response: "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nDate: x\r\nContent-Length: 4\r\n\r\nbusy"},
		{name: "continue refused", request: "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n", response: "HTTP/1.1 417 No\r\nDate: x\r\nContent-Length: 0\r\n\r\n"},
		{name: "early hints", request: q, response: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer},
		{name: "processing", request: q, response: "HTTP/1.1 102 Processing\r\n\r\n" + answer},
		{name: "a large response header", request: q, response: "HTTP/1.1 200 OK\r\nX-Large: " + strings.Repeat("x", 100<<10) + "\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi"},
		{name: "hundreds of response headers", request: q, response: "HTTP/1.1 200 OK\r\n" + manyHeaders(900) + "Date: x\r\nContent-Length: 2\r\n\r\nhi"},
	}
}

func upgradeCases() []wireCase {
	switching := func(token string) string {
		return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: " + token + "\r\nConnection: Upgrade\r\nDate: x\r\n\r\nframe"
	}
	asking := func(token string) string {
		return get11("/", "Sec-WebSocket-Key: x\r\nConnection: Upgrade\r\nUpgrade: "+token+"\r\n")
	}
	return []wireCase{
		{name: "websocket", request: asking("websocket"), response: switching("websocket")},
		{name: "WebSocket in another case", request: asking("WebSocket"), response: switching("WebSocket")},
		{name: "spdy", request: asking("SPDY/3.1"), response: switching("SPDY/3.1")},
		{name: "any other upgrade", request: asking("mine/2"), response: switching("mine/2")},
		{name: "upgrade with a body", request: "POST /exec HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nabc", response: switching("tcp")},
		{name: "connect", request: "CONNECT foo:443 HTTP/1.1\r\nHost: foo:443\r\n\r\n", response: "HTTP/1.1 200 OK\r\nDate: x\r\n\r\nraw"},
	}
}
