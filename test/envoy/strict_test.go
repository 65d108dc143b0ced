// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"io"
	"net/http"
	"testing"
)

// nothing reads each request to its end and answers without a body.
func nothing() http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { _, _ = io.Copy(io.Discard, req.Body) })
}

// strictCase is a request by HTTP/2 that a strict server refuses, and what becomes of it.
type strictCase struct {
	name string
	rawH2
	want string
}

const (
	malformed = "reset: PROTOCOL_ERROR"
	served    = "200"
)

func strictHeaders() []strictCase {
	fields := func(more ...field) []field {
		return append([]field{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}}, more...)
	}
	with := func(more ...field) rawH2 {
		return rawH2{headers: fields(append([]field{{":authority", "web"}}, more...)...)}
	}
	body := func(more ...field) rawH2 { return rawH2{headers: get2("/", more...), trailers: []field{{"a", "b"}}} }
	return []strictCase{
		{"honest", with(field{"a", "b"}), served},
		{"honest, with a body", body(field{"content-length", "3"}), served},
		{"two authorities", rawH2{headers: fields(field{":authority", "a"}, field{":authority", "b"})}, malformed},
		{"two hosts", rawH2{headers: fields(field{"host", "a"}, field{"host", "b"})}, malformed},
		{"an authority of two hosts", rawH2{headers: fields(field{":authority", "a,b"})}, "400"},
		{"an authority with a space", rawH2{headers: fields(field{":authority", "a b"})}, malformed},
		{"no host", rawH2{headers: fields()}, malformed},
		{"two lengths", body(field{"content-length", "3"}, field{"content-length", "4"}), malformed},
		{"one length, twice", body(field{"content-length", "3"}, field{"content-length", "3"}), malformed},
		{"no number", body(field{"content-length", "+3"}), malformed},
		{"another length than the body's", body(field{"content-length", "7"}), malformed},
		{"transfer-encoding", with(field{"transfer-encoding", "chunked"}), malformed},
		{"connection", with(field{"connection", "close"}), malformed},
		{"upper case", with(field{"X-Nodevoy-A", "b"}), malformed},
		{"line feed", with(field{"a", "b\nc"}), malformed},
		{"escape", with(field{"a", "b\x1bc"}), malformed},
		{"line feed in a name", with(field{"a\nb", "c"}), malformed},
		{"quote in the method", rawH2{headers: []field{{":method", `G"T`}, {":scheme", "http"}, {":path", "/"}, {":authority", "a"}}}, malformed},
		{"space in the path", rawH2{headers: get2("/ ")}, malformed},
	}
}

func strictTrailers() []strictCase {
	trailers := func(name string) rawH2 { return rawH2{headers: get2("/"), trailers: []field{{name, "3"}}} }
	var cases []strictCase
	for _, name := range []string{"transfer-encoding", "connection", "upgrade", "te", "keep-alive", ":path", "X-Nodevoy-A"} {
		cases = append(cases, strictCase{"trailer " + name, trailers(name), malformed})
	}
	return append(cases, strictCase{"trailer host", trailers("host"), served})
}

// TestStrictHTTP2: what is against RFC 9113 is refused, at the cost of its stream. The
// same for HTTP/1.1 is in TestUnavoidable.
func TestStrictHTTP2(t *testing.T) { bothModes(t, testStrictHTTP2) }

func testStrictHTTP2(t *testing.T, in mode) {
	address := h2Server(t, "10.244.0.1:8080", nothing())
	in.fixture(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{address}}, service{"auto", "10.96.3.10:80", []string{address}}))
	for _, frontend := range []string{"10.96.1.10:80", "10.96.3.10:80"} {
		// A request with trailers can't be the first to its Service.
		if err := once(in.h2Client(), frontend); err != nil {
			t.Fatal(err)
		}
		for _, c := range append(strictHeaders(), strictTrailers()...) {
			if got := c.send(t, in.dial(t, frontend)); got != c.want {
				t.Errorf("%s, %s: %s, want %s", frontend, c.name, got, c.want)
			}
		}
	}
}
