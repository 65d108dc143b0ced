// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/flow"
)

// stream is an open stream of events.
type stream struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Reader
}

func openStream(ctx context.Context, t *testing.T, url string, headers ...string) *stream {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return &stream{t: t, resp: resp, in: bufio.NewReader(resp.Body)}
}

// next is the next event or comment, without the empty line at its end.
func (s *stream) next() string {
	s.t.Helper()
	text := ""
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			s.t.Fatalf("after %q: %v", text, err)
		}
		if line == "\n" {
			return text
		}
		text += line
	}
}

// flow is the next event, which has to be a flow, and its ID the event's.
func (s *stream) flow() flow.Flow {
	s.t.Helper()
	text := s.next()
	var f flow.Flow
	head, data, _ := strings.Cut(text, "data: ")
	if err := json.Unmarshal([]byte(data), &f); err != nil || head != fmt.Sprintf("event: flow\nid: %d\n", f.ID) {
		s.t.Fatalf("%q is no flow: %v", text, err)
	}
	return f
}

func failed(path string) flow.Flow {
	return flow.Flow{Origin: flow.OriginEnvoy, Protocol: "HTTP/1.1", Path: path, Status: 503}
}

func ok(path string) flow.Flow {
	return flow.Flow{Origin: flow.OriginEnvoy, Protocol: "HTTP/1.1", Path: path, Status: 200}
}

// TestFollow: the last flows that match, then each new one, once; a client that lost its
// connection goes on where it was. Nobody follows any more when it has gone.
func TestFollow(t *testing.T) {
	log := flow.NewLog(10)
	log.Add(failed("/1"), ok("/2"), failed("/3"))
	srv := httptest.NewServer(newFront(t, Source{Flows: log}, false).handler())
	t.Cleanup(srv.Close)
	ctx, cancel := context.WithCancel(t.Context())
	s := openStream(ctx, t, srv.URL+"/v1/flows?follow&last=1&status=5xx")
	if got := s.resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("type %s", got)
	}
	if first := s.next(); first != ": flows follow\n" {
		t.Errorf("first %q", first)
	}
	if f := s.flow(); f.Path != "/3" {
		t.Errorf("the last one is %s", f.Path)
	}
	log.Add(ok("/4"), failed("/5\n\n<b>"))
	if f := s.flow(); f.Path != "/5\n\n<b>" || f.ID != 5 {
		t.Errorf("the next one is %d %q", f.ID, f.Path)
	}
	cancel()
	again := openStream(t.Context(), t, srv.URL+"/v1/flows", "Accept", "text/event-stream", "Last-Event-ID", "2")
	again.next()
	for id := uint64(3); id <= 5; id++ {
		if f := again.flow(); f.ID != id {
			t.Errorf("goes on with %d, want %d", f.ID, id)
		}
	}
	_ = again.resp.Body.Close()
	restarted := openStream(t.Context(), t, srv.URL+"/v1/flows", "Accept", "text/event-stream", "Last-Event-ID", "700")
	restarted.next()
	if f := restarted.flow(); f.ID != 1 {
		t.Errorf("after a restart of the agent, it goes on with %d, want 1", f.ID)
	}
	_ = restarted.resp.Body.Close()
	waitFor(t, "nobody follows", func() bool { return log.Followers() == 0 })
}

// TestFollowersAreBounded: those above the limit are told so, and have a place once
// another has gone.
func TestFollowersAreBounded(t *testing.T) {
	log := flow.NewLog(10)
	srv := httptest.NewServer(newFront(t, Source{Flows: log}, false).handler())
	t.Cleanup(srv.Close)
	var last *stream
	for range maxFollowers {
		last = openStream(t.Context(), t, srv.URL+"/v1/flows?follow")
		last.next()
	}
	more := openStream(t.Context(), t, srv.URL+"/v1/flows?follow")
	body, err := io.ReadAll(more.resp.Body)
	if more.resp.StatusCode != http.StatusServiceUnavailable || err != nil || !strings.Contains(string(body), "16 follow") {
		t.Errorf("one more: %s %s %v", more.resp.Status, body, err)
	}
	_ = last.resp.Body.Close()
	waitFor(t, "a place is free", func() bool { return log.Followers() < maxFollowers })
	waitFor(t, "it is given", func() bool {
		return openStream(t.Context(), t, srv.URL+"/v1/flows?follow").resp.StatusCode == http.StatusOK
	})
	// Streams take no place of other requests.
	if w := ask(newFront(t, sampleSource(), false).handler(), "GET", "/v1/summary", ""); w.Code != http.StatusOK {
		t.Errorf("summary: %d", w.Code)
	}
}

// slowWriter is a client that takes nothing until it is told to.
type slowWriter struct {
	*httptest.ResponseRecorder
	open chan struct{}
}

func (w *slowWriter) Write(p []byte) (int, error) {
	<-w.open
	return w.ResponseRecorder.Write(p)
}

func (*slowWriter) SetWriteDeadline(time.Time) error { return nil }

// TestFollowerThatIsSlow loses flows, learns how many, and holds up nobody. Between
// flows, the stream says that it lives.
func TestFollowerThatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := flow.NewLog(10)
		f := newFront(t, Source{Flows: log}, true)
		w := &slowWriter{httptest.NewRecorder(), make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/v1/flows?follow", http.NoBody).WithContext(ctx))
		}()
		synctest.Wait()
		const sent = 6_000
		for range sent {
			log.Add(ok("/"))
		}
		close(w.open)
		synctest.Wait()
		time.Sleep(keepAlive + time.Second)
		synctest.Wait()
		cancel()
		<-done
		text := w.Body.String()
		got := strings.Count(text, "event: flow\n")
		lost := view.Lost{}
		_, after, _ := strings.Cut(text, "event: lost\ndata: ")
		data, _, _ := strings.Cut(after, "\n")
		if err := json.Unmarshal([]byte(data), &lost); err != nil {
			t.Errorf("lost %q: %v", data, err)
		}
		if got+int(lost.Lost) != sent || lost.Lost == 0 || got == 0 {
			t.Errorf("%d got and %d lost of %d", got, lost.Lost, sent)
		}
		if n := strings.Count(text, "event: lost\n"); n != 1 {
			t.Errorf("the loss is told %d times", n)
		}
		if !strings.HasSuffix(text, "\n: keep-alive\n\n") {
			t.Errorf("at the end: %q", text[max(0, len(text)-100):])
		}
	})
}

// TestClientThatReadsNothing is disconnected, so that it does not hold its place.
func TestClientThatReadsNothing(t *testing.T) {
	log := flow.NewLog(10)
	s := NewServer(Source{Flows: log}, false, func() time.Time { return time.Now().Add(50*time.Millisecond - writeTimeout) }, zaptest.NewLogger(t))
	srv := httptest.NewServer(s.front(false).handler())
	t.Cleanup(srv.Close)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, "GET /v1/flows?follow HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it follows", func() bool { return log.Followers() == 1 })
	big := ok("/" + strings.Repeat("x", 10_000))
	waitFor(t, "it is disconnected", func() bool {
		for range 100 {
			log.Add(big)
		}
		return log.Followers() == 0
	})
}

// TestStreamsEndWithTheAgent at once, not when their clients go.
func TestStreamsEndWithTheAgent(t *testing.T) {
	log := flow.NewLog(10)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- NewServer(Source{Flows: log}, false, time.Now, zaptest.NewLogger(t)).RunLoopback(ctx, ln)
	}()
	s := openStream(t.Context(), t, "http://"+ln.Addr().String()+"/v1/flows?follow")
	s.next()
	cancel()
	if _, err := io.ReadAll(s.in); err != nil {
		t.Errorf("the stream is cut off: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// waitFor waits for a condition.
func waitFor(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 10 s", what)
		case <-tick.C:
		}
	}
}
