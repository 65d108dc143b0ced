// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// What can be asked about.
const (
	// Live is whether the agent is stuck.
	Live = "live"
	// Ready is whether the node redirects.
	Ready = "ready"
	// Envoy is whether the node's Envoy serves connections.
	Envoy = "envoy"
)

// The sockets in the run directory that answer.
const (
	// AgentSocket is the agent's own.
	AgentSocket = "agent.sock"
	// EnvoySocket is that of Envoy's worker threads, EnvoyAdminSocket that of
	// Envoy's admin interface, which its main thread serves.
	EnvoySocket      = "envoy-health.sock"
	EnvoyAdminSocket = "envoy-admin.sock"
)

// Paths of HTTP requests to these sockets.
const (
	// LivePath is answered by the agent.
	LivePath = "/healthz"
	// ReadyPath is answered by the agent, as LivePath is.
	ReadyPath = "/readyz"
	// EnvoyPath has to be the path that Envoy's configuration names.
	EnvoyPath = "/healthz"
	fullStat  = "overload.envoy.overload_actions.stop_accepting_connections.active"
	fullPath  = "/stats?filter=^" + fullStat + "$"
)

const (
	// maxAnswer bounds how much of an answer is read, in bytes.
	maxAnswer = 4096
	// workersTimeout is how long Envoy's worker threads have to answer before
	// the main thread is asked.
	workersTimeout = 2 * time.Second
)

// Known says whether Check can be asked this.
func Known(what string) bool { return what == Live || what == Ready || what == Envoy }

// Check asks the processes whose sockets are in runDir for one of Live, Ready and
// Envoy. It returns nil if all is well, else what is wrong, or why there was no
// answer before ctx ended.
func Check(ctx context.Context, runDir, what string) error {
	switch what {
	case Live:
		_, err := ask(ctx, runDir+"/"+AgentSocket, LivePath)
		return err
	case Ready:
		_, err := ask(ctx, runDir+"/"+AgentSocket, ReadyPath)
		return err
	case Envoy:
		return checkEnvoy(ctx, runDir)
	}
	return errors.New("unknown check: " + what)
}

// checkEnvoy asks Envoy's worker threads. While Envoy's heap is full they accept
// no connection, a health check's neither; the main thread then says so. Such an
// Envoy still serves the connections it has, and must not be restarted.
func checkEnvoy(ctx context.Context, runDir string) error {
	workers, cancel := context.WithTimeout(ctx, workersTimeout)
	defer cancel()
	_, err := ask(workers, runDir+"/"+EnvoySocket, EnvoyPath)
	if err == nil {
		return nil
	}
	stats, adminErr := ask(ctx, runDir+"/"+EnvoyAdminSocket, fullPath)
	if adminErr == nil && strings.Contains(stats, fullStat+": 1\n") {
		return nil
	}
	return err
}

// ask sends a GET for path to the unix socket and returns the body of the
// answer. With a status other than 200, the body is the error.
func ask(ctx context.Context, socket, path string) (body string, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return "", err // It names the socket.
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := read(conn)
	if err != nil {
		return "", errors.New("no answer from " + socket + ": " + err.Error())
	}
	return parse(answer)
}

// read is an answer up to its end, or to where its Content-Length says it ends:
// a draining Envoy keeps the connection open for some seconds more.
func read(r io.Reader) (string, error) {
	var answer []byte
	buffer := make([]byte, maxAnswer)
	for len(answer) < maxAnswer && !complete(string(answer)) {
		n, err := r.Read(buffer)
		answer = append(answer, buffer[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
	}
	return string(answer), nil
}

// complete says whether the answer has a Content-Length and all of its body.
func complete(answer string) bool {
	head, body, ok := strings.Cut(answer, "\r\n\r\n")
	if !ok {
		return false
	}
	for line := range strings.SplitSeq(head, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "Content-Length") {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			return err == nil && len(body) >= n
		}
	}
	return false
}

// parse is the body of an answer with status 200. Other answers are errors, with
// their body or, if there is none, their first line.
func parse(answer string) (string, error) {
	head, body, complete := strings.Cut(answer, "\r\n\r\n")
	status, _, _ := strings.Cut(head, "\r\n")
	version, code, _ := strings.Cut(status, " ")
	code, _, _ = strings.Cut(code, " ")
	if !complete || !strings.HasPrefix(version, "HTTP/1.") {
		return "", errors.New("the answer is not HTTP, or is incomplete")
	}
	if code == "200" {
		return body, nil
	}
	if body = strings.TrimSpace(body); body != "" {
		return "", errors.New(body)
	}
	return "", errors.New(status)
}
