// SPDX-License-Identifier: Apache-2.0

package envoyadmin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nodevoy/nodevoy/agent/unixsocket"
	"github.com/nodevoy/nodevoy/xds"
)

const (
	// pollInterval is how often a draining Envoy's connections are counted.
	pollInterval = 200 * time.Millisecond
	// requestTimeout bounds one request to Envoy, and maxAnswer, in bytes, its answer.
	requestTimeout = 5 * time.Second
	maxAnswer      = 64 << 20
)

// Envoy is the Envoy behind an admin socket. It need not be running.
type Envoy struct {
	// client has a timeout, pages has none.
	client, pages *http.Client
}

// New makes an Envoy from the path of its admin socket. It opens nothing.
func New(socket string) *Envoy {
	return &Envoy{client: unixsocket.Client(socket, requestTimeout), pages: unixsocket.Client(socket, 0)}
}

// Drain has clients close their connections, waits until none is left or ctx
// ends, and returns how many are left. An Envoy that isn't running has none.
//
// It fails Envoy's health check, which nobody else reads: each HTTP/1 response
// then says `Connection: close`, and HTTP/2 connections get GOAWAY, while new
// connections are still served. Resume undoes this, which it could not do for
// /drain_listeners.
func (e *Envoy) Drain(ctx context.Context) (int, error) {
	_, err := e.request(ctx, http.MethodPost, "/healthcheck/fail")
	if Absent(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("drain envoy: %w", err)
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for left := 0; ; {
		now, err := e.Connections(ctx)
		switch {
		case ctx.Err() != nil:
			return left, nil // The request failed because time is up.
		case Absent(err):
			return 0, nil
		case err != nil || now == 0:
			return now, err
		}
		left = now
		select {
		case <-ctx.Done():
			return left, nil
		case <-tick.C:
		}
	}
}

// Resume ends the draining that an earlier agent began: connections are kept
// alive again. It does nothing if Envoy isn't running.
func (e *Envoy) Resume(ctx context.Context) error {
	_, err := e.request(ctx, http.MethodPost, "/healthcheck/ok")
	if err != nil && !Absent(err) {
		return fmt.Errorf("end the draining of envoy: %w", err)
	}
	return nil
}

// Connections counts the open connections from pods, on all listeners.
func (e *Envoy) Connections(ctx context.Context) (int, error) {
	text, err := e.request(ctx, http.MethodGet, `/stats?filter=^listener\..*downstream_cx_active$`)
	if err != nil {
		return 0, fmt.Errorf("count envoy's connections: %w", err)
	}
	sum := 0
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), ": ")
		if !ok || !fromPods(name) {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			return 0, fmt.Errorf("count envoy's connections: %s: %w", lines.Text(), err)
		}
		sum += n
	}
	return sum, lines.Err()
}

// Get asks for a path that changes nothing.
func (e *Envoy) Get(ctx context.Context, path string) (string, error) {
	return e.request(ctx, http.MethodGet, path)
}

// fromPods says whether a count of a listener's connections is one of pods'. Those
// of a worker are in the count of its listener too; admin requests and health
// checks come from this node's own processes.
func fromPods(stat string) bool {
	return !strings.Contains(stat, ".worker_") &&
		!strings.HasPrefix(stat, "listener.admin.") && !strings.HasPrefix(stat, "listener."+xds.HealthListener+".")
}

// Absent says whether no process listens on the socket.
func Absent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

func (e *Envoy) request(ctx context.Context, method, path string) (text string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return "", err
	}
	if len(body) > maxAnswer {
		return "", fmt.Errorf("%s %s: more than %d bytes", method, path, maxAnswer)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return string(body), nil
}
