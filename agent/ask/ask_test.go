// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// served is an agent that answers by h.
func served(t *testing.T, node string, h http.HandlerFunc) Agent {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	a := New(node, func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", srv.Listener.Addr().String())
	})
	t.Cleanup(a.Close)
	return a
}

func name(ctx context.Context, a Agent) (string, error) {
	var said struct{ Name string }
	err := a.Get(ctx, "/v1/name", url.Values{"q": {"a b"}}, &said)
	return said.Name, err
}

func TestEveryAgentHasOneOfThreeOutcomes(t *testing.T) {
	answers := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"name": %q}`, r.URL.Path+" "+r.URL.Query().Get("q"))
	}
	agents := []Agent{
		served(t, "well", answers),
		Absent("none"),
		Socket("gone", filepath.Join(t.TempDir(), "agent.sock")),
		served(t, "bad", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error": "no such pod"}`)
		}),
		served(t, "odd", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }),
		New("cut", func(context.Context) (net.Conn, error) { return nil, errors.New("exec: forbidden") }),
	}
	results := All(t.Context(), agents, name)
	for i, want := range []struct {
		node  string
		state State
		says  string
	}{
		{"well", Answered, "/v1/name a b"},
		{"none", NotRunning, "no agent is running"},
		{"gone", NotRunning, "no such file"},
		{"bad", NoAnswer, "request /v1/name?q=a+b: 400 Bad Request: no such pod"},
		{"odd", NoAnswer, "read the answer to /v1/name: invalid character"},
		{"cut", NoAnswer, "request /v1/name?q=a+b: exec: forbidden"},
	} {
		got := results[i]
		said := got.Error
		if got.Answer != nil {
			said = *got.Answer
		}
		if got.Node != want.node || got.State != want.state || !strings.Contains(said, want.says) || (got.Err == nil) != (want.state == Answered) {
			t.Errorf("%s: %s %q, want %s %q", got.Node, got.State, said, want.state, want.says)
		}
	}
	var status *StatusError
	if !errors.As(results[3].Err, &status) || status.Code != http.StatusBadRequest {
		t.Errorf("%v has no status", results[3].Err)
	}
}

func TestEventsAreFollowedUntilTheEnd(t *testing.T) {
	a := served(t, "a", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, ": hello\n\ndata: {\"id\":1}\n\nevent: lost\ndata: 3\n\n")
		_ = http.NewResponseController(w).Flush()
		if r.URL.Query().Has("follow") {
			<-r.Context().Done()
		}
	})
	var got []string
	each := func(e Event) error {
		got = append(got, e.Name+"="+string(e.Data))
		return nil
	}
	if err := a.Follow(t.Context(), "/v1/flows", nil, each); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream's end: %v", err)
	}
	if diff := cmp.Diff([]string{`={"id":1}`, "lost=3"}, got); diff != "" {
		t.Error(diff)
	}
	ctx, stop := context.WithCancel(t.Context())
	if err := a.Follow(ctx, "/v1/flows", url.Values{"follow": {""}}, func(Event) error { stop(); return nil }); err != nil {
		t.Errorf("it was told to end, and said %v", err)
	}
	full := errors.New("full")
	if err := a.Follow(t.Context(), "/v1/flows", nil, func(Event) error { return full }); !errors.Is(err, full) {
		t.Errorf("an event could not be used: %v", err)
	}
}
