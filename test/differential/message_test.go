// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRequests(t *testing.T) {
	data := "\r\nPOST /a HTTP/1.1\r\nHost:web \r\nX-F: a\r\n b\r\nTransfer-Encoding: Chunked\r\n\r\n3;e=1\r\nabc\r\n0\r\nX-T: v\r\n\r\n" +
		"GET / HTTP/1.0\nA: b\n\n" +
		"PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc"
	want := []Message{
		{
			Start: "POST /a HTTP/1.1", Framing: Chunked, Body: "abc", Complete: true,
			Fields:   []Field{{"Host", "web", "white space"}, {"X-F", "a b", "a folded line"}, {"Transfer-Encoding", "Chunked", ""}},
			Trailers: []Field{{"X-T", "v", ""}},
			Odd:      []string{"an empty line before the message", "a chunk extension, or odd size"},
		},
		{Start: "GET / HTTP/1.0", Fields: []Field{{"A", "b", ""}}, Framing: None, Complete: true, Odd: []string{"a bare line feed"}},
		{Start: "PUT / HTTP/1.1", Fields: []Field{{"Content-Length", "5", ""}}, Framing: Length, Body: "abc"},
	}
	got, rest := Requests(data)
	if diff := cmp.Diff(want, got); diff != "" || rest != "" {
		t.Errorf("rest %q, %s", rest, diff)
	}
}

func TestResponses(t *testing.T) {
	data := "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" +
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n" +
		"HTTP/1.1 200 OK\r\n\r\nto the end"
	for _, ended := range []bool{false, true} {
		var bodies []string
		got, rest := Responses(data, []string{"HEAD", "GET", "GET"}, ended)
		for _, m := range got {
			bodies = append(bodies, m.Body)
		}
		if diff := cmp.Diff([]string{"", "", "", "to the end"}, bodies); diff != "" || rest != "" || got[3].Complete != ended {
			t.Errorf("rest %q, complete %v, %s", rest, got[3].Complete, diff)
		}
	}
	if got, rest := Responses("HTTP/1.1 200 OK\r\nA: b\r\n", nil, true); len(got) > 0 || rest == "" {
		t.Errorf("half a header is %v, and %q", got, rest)
	}
}
