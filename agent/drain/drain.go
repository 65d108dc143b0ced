// SPDX-License-Identifier: Apache-2.0

// Package drain asks a running Envoy, by its admin socket, to let its
// connections end, waits until they have, and takes that back: an agent that
// was told to stop may be followed by another one beside the same Envoy.
package drain

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// pollInterval is how often a draining Envoy is asked what is left.
	pollInterval = 200 * time.Millisecond
	// requestTimeout bounds one request to Envoy.
	requestTimeout = 5 * time.Second
)

// Envoy is the one behind an admin socket; it need not be there.
//
// It is drained by failing its health check, which no one asks for here: then
// each HTTP/1 response says `Connection: close`, and HTTP/2 connections get
// GOAWAY, while new connections are served. Unlike /drain_listeners, which does
// the same to connections, it can be undone without starting Envoy anew.
type Envoy struct {
	client *http.Client
}

// New makes an Envoy of its admin socket's path. It opens nothing.
func New(socket string) *Envoy {
	return &Envoy{client: &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
		},
	}}
}

// Run drains until no connection from a pod is left or ctx ends, and returns
// how many are left. An Envoy that is not there has none.
func (e *Envoy) Run(ctx context.Context) (int, error) {
	_, err := e.ask(ctx, http.MethodPost, "/healthcheck/fail")
	if absent(err) {
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
			return left, nil // The time is up, which is not the count's fault.
		case absent(err):
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

// Resume ends the draining that an earlier agent began, so that connections
// are kept alive again. An Envoy that is not there does not drain.
func (e *Envoy) Resume(ctx context.Context) error {
	_, err := e.ask(ctx, http.MethodPost, "/healthcheck/ok")
	if err != nil && !absent(err) {
		return fmt.Errorf("end envoy's draining: %w", err)
	}
	return nil
}

// Connections counts the open connections from pods, on all listeners.
func (e *Envoy) Connections(ctx context.Context) (int, error) {
	text, err := e.ask(ctx, http.MethodGet, `/stats?filter=^listener\..*downstream_cx_active$`)
	if err != nil {
		return 0, fmt.Errorf("count envoy's connections: %w", err)
	}
	sum := 0
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), ": ")
		// A worker's connections are in its listener's count; the admin socket
		// is asked by us.
		if !ok || strings.HasPrefix(name, "listener.admin.") || strings.Contains(name, ".worker_") {
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

// absent says whether nobody is behind the socket.
func absent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

func (e *Envoy) ask(ctx context.Context, method, path string) (text string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return string(body), nil
}
