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
	"github.com/nodevoy/nodevoy/xds"
)

// forged is what a client appends to a value to have the rest of the line its own.
const forged = `x" "1.2.3.4"` + "\t" + `[2026-11-21T10:00:00.000Z] 200 5 1 10.9.9.9:80 shop/bank/http - 10.244.9.9:1 shop/victim shop/bank-0 "GET / HTTP/1.1`

// facts matches a line of the text log: what no client can write, up to the backend's
// pod, and what the client wrote.
func facts() *regexp.Regexp {
	return regexp.MustCompile(`^\[[0-9T:.Z-]+\] (\d+|-) \d+ \d+ (\S+ \S+) \S+ (\S+) (\S+ \S+) (".*")$`)
}

// TestLogIsNotForged: whatever a client writes, each request has one line, in which all
// that the client wrote comes after the facts. JSON has it in its place.
func TestLogIsNotForged(t *testing.T) {
	for _, form := range []xds.AccessLog{xds.AccessLogText, xds.AccessLogJSON} {
		t.Run(string(form), func(t *testing.T) {
			bothModes(t, func(t *testing.T, in mode) { testLogIsNotForged(t, in, form) })
		})
	}
}

func testLogIsNotForged(t *testing.T, in mode, form xds.AccessLog) {
	web := h2Server(t, "10.244.0.1:8080", nothing())
	f := newFixtureWith(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{web}}),
		setup{pods: in.pods, change: func(c *xds.Config) { c.AccessLog = form }})
	const agent, from, id, path = "user_agent", "x_forwarded_for", "request_id", "path"
	count := 0
	for _, c := range []struct {
		// header is what the client sends value in, which the log has in column; json is
		// how that reads, if not as it was sent.
		header, column, value, json string
		onlyHTTP2                   bool
	}{
		{header: "user-agent", column: agent, value: "Mozilla/5.0 (X11; 'x') \\ [y]"},
		{header: "user-agent", column: agent, value: forged},
		{header: "user-agent", column: agent, value: `\"}`},
		{header: "user-agent", column: agent, value: "a\x9b2Jb", json: "a\u009b2Jb"},
		{header: "user-agent", column: agent, value: "a\u2028[2026-11-21T10:00:00.000Z] 200"},
		{header: "x-forwarded-for", column: from, value: forged},
		{header: "x-request-id", column: id, value: forged},
		{header: "x-request-id", column: id, value: "%PROTOCOL%"},
		{header: ":path", column: path, value: `/"HTTP/1.1"200`},
		{header: ":path", column: path, value: "/\x85a\xe2\x80\xa8", json: "/\u0085a\u00e2\u0080\u00a8", onlyHTTP2: true},
	} {
		target, more := "/", field{c.header, c.value}
		if c.column == path {
			target, more = c.value, field{"a", "b"}
		}
		check := func(protocol string) {
			t.Helper()
			count++
			lines := f.accessLog(count)
			if len(lines) != count {
				t.Fatalf("%q, %s: %d lines for %d requests: %q", c.value, protocol, len(lines), count, lines[count-1:])
			}
			if form == xds.AccessLogText {
				checkFacts(t, lines[count-1], c.value)
				return
			}
			object := map[string]any{}
			want := cmp.Or(c.json, c.value)
			if err := json.Unmarshal([]byte(lines[count-1]), &object); err != nil || object[c.column] != want || object["backend"] != "shop/web-0" {
				t.Errorf("%s: %s, %v; want %s of %q", protocol, lines[count-1], err, c.column, want)
			}
		}
		if !c.onlyHTTP2 {
			if _, err := converse(in.dial(t, "10.96.1.10:80"), get11(target, more.name+": "+more.value+"\r\nConnection: close\r\n")); err != nil {
				t.Fatal(err)
			}
			check("HTTP/1.1")
		}
		if got := (rawH2{headers: get2(target, more)}).send(t, in.dial(t, "10.96.1.10:80")); got != served {
			t.Fatalf("%q: %s", c.value, got)
		}
		check("HTTP/2")
	}
}

// checkFacts wants the facts of a request to the Service, and value after them.
func checkFacts(t *testing.T, line, value string) {
	t.Helper()
	m := facts().FindStringSubmatch(line)
	if m == nil || m[1] != "200" || m[2] != "10.244.0.1:8080 shop/web/main" || !strings.HasSuffix(m[4], " shop/web-0") || !strings.Contains(m[5], value) {
		t.Errorf("facts %q in %q, want %q after them", m, line, value)
	}
}

// TestLogNamesNoForgedPod: the API server lets the author of an EndpointSlice write
// anything where it names pods, nodes and zones.
func TestLogNamesNoForgedPod(t *testing.T) {
	web := webServer(t, "10.244.0.1:8080", "web-0")
	svc, slice := service{"web", "10.96.1.10:80", []string{web}}.objects(t)
	const line = "web-0 \"-\"\n" + forged
	slice.Endpoints[0].TargetRef.Name = line
	slice.Endpoints[0].NodeName, slice.Endpoints[0].Zone = new(line), new(line)
	f := newFixture(t, model.Build(model.Inputs{
		NodeName: "node-a", Services: []*corev1.Service{svc}, EndpointSlices: []*discoveryv1.EndpointSlice{slice},
	}, model.DefaultOptions()))
	mustGet(t, "10.96.1.10:80", "web-0")
	lines := f.accessLog(1)
	if m := facts().FindStringSubmatch(lines[0]); len(lines) != 1 || m == nil || m[4] != "- -" {
		t.Errorf("log: %q", lines)
	}
}
