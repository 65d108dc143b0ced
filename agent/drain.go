// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// drainPoll is how often a draining Envoy is asked what is left.
const drainPoll = 200 * time.Millisecond

// drainer asks the node's Envoy, by its admin socket, to let its connections
// end: HTTP/1 responses say `Connection: close`, HTTP/2 connections get GOAWAY.
type drainer struct {
	client *http.Client
}

// newDrainer makes a drainer for the Envoy with this admin socket.
func newDrainer(socket string) *drainer {
	return &drainer{client: &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
		},
	}}
}

// run drains until no connection from a pod is left or ctx ends, and returns
// how many are left.
func (d *drainer) run(ctx context.Context) (int, error) {
	if _, err := d.admin(ctx, http.MethodPost, "/drain_listeners?graceful&skip_exit"); err != nil {
		return 0, fmt.Errorf("drain envoy: %w", err)
	}
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		left, err := d.connections(ctx)
		if err != nil || left == 0 {
			return left, err
		}
		select {
		case <-ctx.Done():
			return left, nil
		case <-tick.C:
		}
	}
}

// connections counts the open connections from pods on all listeners.
func (d *drainer) connections(ctx context.Context) (int, error) {
	text, err := d.admin(ctx, http.MethodGet, `/stats?filter=^listener\..*downstream_cx_active$`)
	if err != nil {
		return 0, fmt.Errorf("count envoy's connections: %w", err)
	}
	sum := 0
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), ": ")
		if !ok || strings.HasPrefix(name, "listener.admin.") || strings.Contains(name, ".worker_") {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			return 0, fmt.Errorf("count envoy's connections: %s: %w", lines.Text(), err)
		}
		sum += n
	}
	return sum, nil
}

func (d *drainer) admin(ctx context.Context, method, path string) (text string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := d.client.Do(req)
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
