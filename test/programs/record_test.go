// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/test/lab"
)

// recordCommand is the argument by which this program is the recorder.
const recordCommand = "record"

// recorder is a web server that writes down the bytes of each request, as JSON lines.
func recorder() program {
	return program{
		name: "recorder", listen: 8080, start: `seq 20000 >body; exec ` + executable() + ` ` + recordCommand + ` :8080`,
		ports: []port{{name: "http", number: 80}, {number: 8080}, {name: "x", number: 7777, app: "http"}, {name: "tcp", number: 7778}},
		calls: []call{{run: `curl -sS http://$HOST:$PORT/`}},
	}
}

func executable() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// gone is what may become of requests whose client has closed the connection, or its direction.
const gone = "Envoy gives up a request when its client ends its direction before there is a connection to the server"

// recorded are clients of the recorder.
func recorded() []call {
	return []call{
		{run: `curl -sS http://$HOST:$PORT/`},
		{run: `curl -sS -I http://$HOST:$PORT/a?b=c#d`},
		{run: `curl -sS --http1.0 http://$HOST:$PORT/`},
		{run: `curl -sS --http1.0 -d a=b http://$HOST:$PORT/`},
		{run: `curl -sS --http2 http://$HOST:$PORT/`},
		{run: `curl -sS -H 'Host: other.example' -H 'X-Empty;' -H 'x-lower: a' -H 'X-UPPER: b' -A '' http://$HOST:$PORT/`},
		{run: `curl -sS --path-as-is 'http://'$HOST:$PORT'/a//b/./../c/%2F%2e%41?q=%20+&x=[1]|{2}'`},
		{run: `curl -sS -g 'http://'$HOST:$PORT'/;p=1/a,b/~u/$x/!*()@:?a=/?b'`},
		{run: `curl -sS -d a=b http://$HOST:$PORT/post`},
		{run: `curl -sS -d '' http://$HOST:$PORT/post`},
		{run: `curl -sS -X POST http://$HOST:$PORT/post`},
		{run: `curl -sS -X PUT -d @/etc/hostname http://$HOST:$PORT/put`},
		{run: `curl -sS -X PATCH --json '{}' http://$HOST:$PORT/patch`},
		{run: `curl -sS -X DELETE http://$HOST:$PORT/delete`},
		{run: `curl -sS -X OPTIONS http://$HOST:$PORT/options`},
		{run: `curl -sS -X OPTIONS --request-target '*' http://$HOST:$PORT/`, unlike: "Envoy answers OPTIONS * itself"},
		{run: `curl -sS -X TRACE http://$HOST:$PORT/trace`},
		{run: `curl -sS -X REPORT http://$HOST:$PORT/report`},
		{run: `curl -sS -X lower http://$HOST:$PORT/lower`},
		{run: `curl -sS -T - http://$HOST:$PORT/upload <$DIR/body`},
		{run: `(printf one; printf two) | curl -sS -H 'Transfer-Encoding: chunked' -d @- http://$HOST:$PORT/chunks`},
		{run: `curl -sS -H 'Expect: 100-continue' -d a=b http://$HOST:$PORT/expect`},
		{run: `curl -sS -r 1-2,4- -z 'Jan 1 2020' -e http://from/ -b c=d -b e=f http://$HOST:$PORT/range`},
		{run: `curl -sS -u user:pass --compressed -H 'X-Two: a' -H 'X-Two: b' http://$HOST:$PORT/`},
		{run: `curl -sS -H 'X-Forwarded-For: 1.2.3.4' -H 'X-Request-Id: r' -H 'Via: 1.0 v' -H 'Forwarded: for=x' -H 'Traceparent: 00-a' http://$HOST:$PORT/`},
		{run: `curl -sS -H 'TE: trailers' -H 'Priority: u=1' -H 'Upgrade-Insecure-Requests: 1' http://$HOST:$PORT/`},
		{run: `curl -sS http://$HOST:$PORT/1 http://$HOST:$PORT/2`},
		{run: `curl -sS -x $HOST:$PORT http://origin.example:81/x?y`},
		{run: `curl -sS -x $HOST:$PORT --http1.0 http://origin.example/x`},
		{run: `curl -sS -x $HOST:$PORT -U proxy:pass http://user:pass@origin.example/x`, unlike: absoluteForm},
		{run: `curl -sS -x $HOST:$PORT ftp://origin.example/x`, unlike: absoluteForm},
		{run: `curl -sS --request-target http://user@origin.example/x http://$HOST:$PORT/`, unlike: absoluteForm},
		{run: `curl -sS --request-target https://origin.example/x http://$HOST:$PORT/`, unlike: absoluteForm},
		{run: `curl -sS -H "X-Long: $(head -c 20000 /dev/zero | tr '\0' x)" http://$HOST:$PORT/`},
		{run: `printf 'GET / HTTP/1.0\r\n\r\n' | nc.traditional $HOST $PORT | tail -1`},
		{run: `printf 'POST /nc HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody' | nc.traditional $HOST $PORT | tail -1`},
		{run: `printf 'GET /gone HTTP/1.1\r\nHost: a\r\n\r\n' | nc.openbsd -N $HOST $PORT >/dev/null`, unlike: gone},
		{run: `printf 'POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1' | nc.traditional -q 0 $HOST $PORT >/dev/null`, unlike: gone},
	}
}

// testRecorder compares what the recorder receives of each client, and answers.
func (w *fixture) testRecorder(t *testing.T) {
	t.Helper()
	s := w.servers["recorder"]
	for i, p := range s.ports {
		t.Run(fmt.Sprintf("%s:%d", p.name, p.number), func(t *testing.T) {
			class := ""
			for _, c := range recorded() {
				direct, received := w.record(t, s, w.direct, c, i)
				got, receivedGot := w.record(t, s, w.client, c, i)
				if class == "" {
					class = w.class(t, s.at[i])
				}
				if c.mayDiffer(class, w.mode) {
					continue
				}
				if got.status != direct.status || got.output != direct.output {
					t.Errorf("%s\nby kube-proxy: %s\nby nodevoy:    %s", c.run, direct, got)
				}
				want, have := received, receivedGot
				if class != "tcp" {
					want, have = canonicalRequests(received, s.at[i].String()), canonicalRequests(receivedGot, s.at[i].String())
				}
				if diff := cmp.Diff(want, have); diff != "" {
					t.Errorf("%s\nthe server received otherwise (-by kube-proxy, +by nodevoy):\n%s", c.run, diff)
				}
			}
		})
	}
}

// record runs a client and returns what the recorder received of it; nothing, if that
// takes a second.
func (w *fixture) record(t *testing.T, s *server, from *lab.Pod, c call, i int) (outcome, []string) {
	t.Helper()
	before := len(s.process.Output())
	got := must(w.run(t, from, s, c, s.at[i]))(t)
	var received string
	err := lab.Until(limit(t, time.Second), "a request", func() error {
		received = s.process.Output()[before:]
		if !strings.HasSuffix(received, "\n") {
			return fmt.Errorf("none of %s", c.run)
		}
		return nil
	})
	if err != nil {
		return got, nil
	}
	var requests []string
	for line := range strings.Lines(received) {
		var request string
		check(t, json.Unmarshal([]byte(line), &request))
		requests = append(requests, request)
	}
	return got, requests
}

// record is the recorder.
func record(address string, out io.Writer) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	lines := json.NewEncoder(out)
	write := func(request string) error {
		mu.Lock()
		defer mu.Unlock()
		return lines.Encode(request)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go serveRecorded(conn, write)
	}
}

// serveRecorded writes down the requests of a connection and answers them. What is no
// request is written down as it is.
func serveRecorded(conn net.Conn, write func(request string) error) {
	defer conn.Close()
	var seen bytes.Buffer
	in := bufio.NewReader(io.TeeReader(conn, &seen))
	for {
		request, err := http.ReadRequest(in)
		if err == nil {
			if request.Header.Get("Expect") != "" {
				fmt.Fprint(conn, "HTTP/1.1 100 Continue\r\n\r\n")
			}
			_, err = io.Copy(io.Discard, request.Body)
		}
		if seen.Len() > 0 {
			err = errors.Join(err, write(seen.String()))
		}
		seen.Reset()
		if err != nil {
			return
		}
		body := "received\n"
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: %d\r\n\r\n", len(body))
		if request.Method != http.MethodHead {
			fmt.Fprint(conn, body)
		}
		if request.Close || request.ProtoMinor == 0 {
			return
		}
	}
}

// canonicalRequests are requests without the differences that Envoy's parser makes of
// any, which test/envoy/README.md lists: hop-by-hop fields, the order of fields, the
// length of no body, white space, HTTP/1.0, the missing Host, and the sizes of chunks.
func canonicalRequests(requests []string, address string) []string {
	var out []string
	for _, text := range requests {
		head, body, _ := strings.Cut(text, "\r\n\r\n")
		lines := strings.Split(head, "\r\n")
		line := strings.TrimSuffix(strings.TrimSuffix(lines[0], " HTTP/1.0"), " HTTP/1.1")
		fields := slices.DeleteFunc(lines[1:], func(field string) bool {
			return isHop(field) || strings.EqualFold(field, "Content-Length: 0")
		})
		for i, field := range fields {
			fields[i] = strings.TrimSpace(field)
		}
		if !slices.ContainsFunc(fields, func(f string) bool { return strings.HasPrefix(strings.ToLower(f), "host:") }) {
			fields = append(fields, "Host: "+address)
		}
		slices.Sort(fields)
		if slices.ContainsFunc(fields, func(f string) bool { return strings.EqualFold(f, "Transfer-Encoding: chunked") }) {
			body = dechunk(body)
		}
		out = append(out, line+"\n"+strings.Join(fields, "\n")+"\n\n"+body)
	}
	return out
}

// dechunk is a body without its chunks.
func dechunk(body string) string {
	request, err := http.ReadRequest(bufio.NewReader(strings.NewReader("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)))
	if err != nil {
		return err.Error()
	}
	plain, err := io.ReadAll(request.Body)
	return fmt.Sprint(string(plain), err)
}

// isHop says whether a field is for one connection only.
func isHop(field string) bool {
	name, value, _ := strings.Cut(strings.ToLower(field), ":")
	switch name {
	case "connection", "keep-alive", "proxy-connection":
		return true
	case "upgrade":
		return strings.TrimSpace(value) == "h2c"
	}
	return name == "http2-settings"
}

// canonicalResponse is what curl prints of responses, without the differences that
// Envoy's parser makes of any.
func canonicalResponse(text string) string {
	var out []string
	for rest := text; ; {
		head, body, ok := strings.Cut(rest, "\r\n\r\n")
		if !ok || !strings.HasPrefix(head, "HTTP/") {
			return strings.Join(append(out, rest), "\n\n")
		}
		lines := strings.Split(head, "\r\n")
		status := strings.TrimPrefix(strings.TrimPrefix(lines[0], "HTTP/1.0"), "HTTP/1.1")
		fields := slices.DeleteFunc(lines[1:], func(field string) bool {
			lower := strings.ToLower(field)
			return isHop(field) || strings.HasPrefix(lower, "date:") || strings.HasPrefix(lower, "transfer-encoding:")
		})
		slices.Sort(fields)
		out = append(out, status+"\n"+strings.Join(fields, "\n"))
		rest = body
	}
}
