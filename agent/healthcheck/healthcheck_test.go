// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// keep, before an answer, is for a server that doesn't close the connection.
const keep = "keep:"

// serve answers a request at a socket of the run directory, which has to begin
// with these words, with these bytes, and keeps the connection open if the bytes
// begin with keep. Without bytes it never answers.
func serve(t *testing.T, runDir, name, request, answer string) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(runDir, name))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = ln.Close(); <-done }) // Ends the wait for a request that never comes.
	go func() {
		defer close(done)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()                 // The client may have given up.
		wait := func() { _, _ = io.Copy(io.Discard, conn) } // Until the client closes.
		if answer == "" {
			wait()
			return
		}
		answer, open := strings.CutPrefix(answer, keep)
		got := make([]byte, 1024)
		if n, err := conn.Read(got); err != nil || !strings.HasPrefix(string(got[:n]), request+" HTTP/1.1\r\n") {
			t.Errorf("request %q, error %v; want %s", got[:n], err, request)
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			t.Error(err)
		}
		if open {
			wait()
		}
	}()
}

// check is what Check says, within a short time.
func check(t *testing.T, runDir, what string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	return Check(ctx, runDir, what)
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if (want == "") != (got == "") || !strings.Contains(got, want) {
		t.Errorf("got error %q, want %q", got, want)
	}
}

func TestAgent(t *testing.T) {
	for name, tc := range map[string]struct{ answer, want string }{
		"healthy":        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n", ""},
		"kept open":      {keep + "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n", ""},
		"incomplete":     {keep + "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok\n", "no answer from "},
		"no reason":      {"HTTP/1.1 200\r\n\r\n", ""},
		"unhealthy":      {"HTTP/1.1 503 Service Unavailable\r\n\r\nthe loop is stuck\n", "the loop is stuck"},
		"without words":  {"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 404 Not Found"},
		"cut off":        {"HTTP/1.1 200 OK\r\nContent-", "the answer is not HTTP, or is incomplete"},
		"something else": {"+OK ready\r\n\r\n", "the answer is not HTTP, or is incomplete"},
		"a similar code": {"HTTP/1.1 2000\r\n\r\nno", "no"},
		"silence":        {"", "no answer from "},
	} {
		t.Run(name, func(t *testing.T) {
			for what, request := range map[string]string{Live: "GET /healthz", Ready: "GET /readyz"} {
				runDir := t.TempDir()
				serve(t, runDir, AgentSocket, request, tc.answer)
				wantError(t, check(t, runDir, what), tc.want)
			}
		})
	}
}

func TestEnvoy(t *testing.T) {
	const ok, full = "HTTP/1.1 200 OK\r\n\r\n", "overload.envoy.overload_actions.stop_accepting_connections.active: "
	for name, tc := range map[string]struct{ workers, main, want string }{
		"healthy":              {ok, "", ""},
		"full":                 {"", ok + full + "1\n", ""},
		"workers hang":         {"", ok + full + "0\n", "no answer from "},
		"no bound of the heap": {"", ok, "no answer from "},
		"everything hangs":     {"", "", "no answer from "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runDir := t.TempDir()
			serve(t, runDir, EnvoySocket, "GET /healthz", tc.workers)
			serve(t, runDir, EnvoyAdminSocket, "GET "+fullPath, tc.main)
			ctx, cancel := context.WithTimeout(t.Context(), workersTimeout+500*time.Millisecond)
			defer cancel()
			wantError(t, Check(ctx, runDir, Envoy), tc.want)
		})
	}
}

func TestNobody(t *testing.T) {
	runDir := t.TempDir()
	for _, what := range []string{Live, Ready, Envoy} {
		if err := check(t, runDir, what); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s without a socket: got error %v", what, err)
		}
	}
	for _, name := range []string{AgentSocket, EnvoySocket} {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(runDir, name)})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false)
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, what := range []string{Live, Ready, Envoy} {
		if err := check(t, runDir, what); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s with a socket left behind: got error %v", what, err)
		}
	}
}

func TestKnown(t *testing.T) {
	for what, want := range map[string]bool{Live: true, Ready: true, Envoy: true, "": false, "well": false} {
		if Known(what) != want {
			t.Errorf("%q is known: %v", what, !want)
		}
	}
	wantError(t, check(t, t.TempDir(), "well"), "unknown check: well")
}
