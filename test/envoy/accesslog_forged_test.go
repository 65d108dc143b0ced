// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"cmp"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// forged is what a client appends to a value to have the rest of the line its own,
// and further lines.
const forged = `x" "1.2.3.4" 10.9.9.9:80 shop/bank/http - 10.244.9.9:1 shop/victim shop/bank-0`

// textLine is a line of the text log, each column by itself.
func textLine() *regexp.Regexp {
	const word, quoted = `[!#-~]+`, `"[ !#-~]*"`
	return regexp.MustCompile(`^\[[0-9T:.Z-]+\] "` + word + " " + word + " " + word + `" ` +
		strings.Join([]string{word, `\d+`, `\d+`, word, quoted, quoted, word, word, word, word, word, word}, " ") + "$")
}

// TestLogIsNotForged: whatever a client writes, the text log has one line for each
// request, and no client writes more than its own columns.
func TestLogIsNotForged(t *testing.T) { bothModes(t, testLogIsNotForged) }

func testLogIsNotForged(t *testing.T, in mode) {
	web := h2Server(t, "10.244.0.1:8080", nothing())
	f := in.fixture(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{web}}))
	const agent, from, id = "user_agent", "x_forwarded_for", "request_id"
	count := 0
	for _, c := range []struct {
		name, path, header, value string
		// column is the one in which the object has what the client wrote, as shown;
		// empty if the request has a line of text.
		column, shown string
		onlyHTTP2     bool
	}{
		{name: "honest", path: "/a?b=%22'x", header: "user-agent", value: "Mozilla/5.0 (X11; 'x') \\ [y]"},
		{name: "empty in quotes", path: "/", header: "user-agent"},
		{name: "empty", path: "/", header: "x-request-id", column: id, shown: ""},
		{name: "agent", path: "/", header: "user-agent", value: forged, column: agent},
		{name: "agent that ends an object", path: "/", header: "user-agent", value: `\"}`, column: agent},
		{name: "tab", path: "/", header: "user-agent", value: "a\tb", column: agent},
		{name: "line of Unicode", path: "/", header: "user-agent", value: "a\u2028[2026-11-21T10:00:00.000Z] b", column: agent},
		{name: "command to a terminal", path: "/", header: "user-agent", value: "a\x9b2Jb", column: agent, shown: "a\u009b2Jb"},
		{name: "forwarded", path: "/", header: "x-forwarded-for", value: forged, column: from},
		{name: "words in the request id", path: "/", header: "x-request-id", value: `1 "me" "-" 10.9.9.9:80 shop/bank/http`, column: id},
		{name: "a second word", path: "/", header: "x-request-id", value: "1 2", column: id},
		{name: "path", path: `/"HTTP/1.1"200`, header: "a", column: "path"},
		{name: "bytes in the path", path: "/\x85a\xe2\x80\xa8", header: "a", column: "path", shown: "/\u0085a\u00e2\u0080\u00a8", onlyHTTP2: true},
	} {
		var lines []string
		next := func() string {
			count++
			lines = f.accessLog(count)
			return lines[len(lines)-1]
		}
		got := map[string]string{}
		if !c.onlyHTTP2 {
			if _, err := converse(in.dial(t, "10.96.1.10:80"), get11(c.path, c.header+": "+c.value+"\r\nConnection: close\r\n")); err != nil {
				t.Fatal(err)
			}
			got["HTTP/1.1"] = next()
		}
		rawH2{headers: get2(c.path, field{c.header, c.value})}.send(t, in.dial(t, "10.96.1.10:80"))
		got["HTTP/2"] = next()
		if len(lines) != count {
			t.Fatalf("%s: %d lines for %d requests: %q", c.name, len(lines), count, lines[count-1:])
		}
		for protocol, line := range got {
			if c.column == "" {
				if !textLine().MatchString(line) {
					t.Errorf("%s, %s: not a line of text: %s", c.name, protocol, line)
				}
				continue
			}
			var want any = cmp.Or(c.shown, c.value, c.path)
			if c.name == "empty" {
				want = ""
			}
			object := map[string]any{}
			if err := json.Unmarshal([]byte(line), &object); err != nil || object[c.column] != want || object["backend"] != "shop/web-0" {
				t.Errorf("%s, %s: %s, %v; want %s of %v", c.name, protocol, line, err, c.column, want)
			}
		}
	}
}

// TestLogNamesNoForgedPod: the API server lets the author of an EndpointSlice write
// anything where it names pods, nodes and zones.
func TestLogNamesNoForgedPod(t *testing.T) {
	web := webServer(t, "10.244.0.1:8080", "web-0")
	svc, slice := service{"web", "10.96.1.10:80", []string{web}}.objects(t)
	const line = "web-0\n[2026-11-21T10:00:00.000Z] \"GET / HTTP/1.1\" 200 5 1 - \"-\" \"-\" 10.9.9.9:80 shop/bank/http - 10.244.9.9:1 - shop/bank-0"
	slice.Endpoints[0].TargetRef.Name = line
	slice.Endpoints[0].NodeName, slice.Endpoints[0].Zone = new(line), new(line)
	f := newFixture(t, model.Build(model.Inputs{
		NodeName: "node-a", Services: []*corev1.Service{svc}, EndpointSlices: []*discoveryv1.EndpointSlice{slice},
	}, model.DefaultOptions()))
	mustGet(t, "10.96.1.10:80", "web-0")
	lines := f.accessLog(1)
	if len(lines) != 1 || !textLine().MatchString(lines[0]) || !strings.HasSuffix(lines[0], " -") {
		t.Errorf("log: %q", lines)
	}
}
