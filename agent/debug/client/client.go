// SPDX-License-Identifier: Apache-2.0

// Package client asks an agent's debug endpoint on its unix socket.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/unixsocket"
)

// maxError bounds how much of an answer that is an error is read, in bytes.
const maxError = 64 << 10

// Client is for one agent.
type Client struct {
	socket string
	http   *http.Client
}

// New makes a client for the unix socket at this path. It connects to nothing yet.
func New(socket string) *Client {
	return &Client{socket: socket, http: unixsocket.Client(socket, 0)}
}

// Status is the summary, with all pods, and with the frontends in use or, if all is
// set, every one.
func (c *Client) Status(ctx context.Context, all bool) (view.Status, error) {
	var s view.Status
	if err := c.Get(ctx, "/v1/summary", nil, &s.Summary); err != nil {
		return s, err
	}
	query := url.Values{}
	if !all {
		query.Set("inUse", "true")
		s.Limits = nil
	}
	var err error
	if s.Pods, err = List[view.Pod](ctx, c, "/v1/pods", nil); err != nil {
		return s, err
	}
	s.Frontends, err = List[view.Frontend](ctx, c, "/v1/frontends", query)
	return s, err
}

// List is a whole list, of all its parts.
func List[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	all, next := []T{}, url.Values{}
	for key, values := range query {
		next[key] = values
	}
	for {
		var part view.List[T]
		if err := c.Get(ctx, path, next, &part); err != nil {
			return nil, err
		}
		all = append(all, part.Items...)
		if part.Continue == "" {
			return all, nil
		}
		next.Set("continue", part.Continue)
	}
}

// Get reads the JSON at a path into a value.
func (c *Client) Get(ctx context.Context, path string, query url.Values, into any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	body, err := c.Open(ctx, path)
	if err != nil {
		return err
	}
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return errors.Join(fmt.Errorf("read the agent's answer to %s: %w", path, err), body.Close())
	}
	return body.Close()
}

// Open is what the agent answers at a path, which may have a query. The caller closes
// it. An answer that is not a success is an error, in the agent's words.
func (c *Client) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	return c.request(ctx, http.MethodGet, path, http.NoBody)
}

// SetLogLevel changes what the agent and Envoy log, or changes it back if to is nil, and
// returns what they log now.
func (c *Client) SetLogLevel(ctx context.Context, to *view.SetLogLevel) (now view.LogLevel, err error) {
	method, text := http.MethodDelete, []byte{}
	if to != nil {
		method = http.MethodPut
		if text, err = json.Marshal(to); err != nil {
			return now, fmt.Errorf("write the request for log levels: %w", err)
		}
	}
	body, err := c.request(ctx, method, "/v1/log-level", bytes.NewReader(text))
	if err != nil {
		return now, err
	}
	return now, errors.Join(json.NewDecoder(body).Decode(&now), body.Close())
}

func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, body)
	if err != nil {
		return nil, fmt.Errorf("request %s of the agent: %w", path, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("request %s of the agent at %s: %w", path, c.socket, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	err = errors.Join(err, resp.Body.Close())
	err = errors.Join(fmt.Errorf("request %s of the agent: %s: %s", path, resp.Status, reason(text)), err)
	if resp.StatusCode == http.StatusBadRequest {
		return nil, InvalidError{err}
	}
	return nil, err
}

// InvalidError is the agent's answer to a request that can't be meant as it is.
type InvalidError struct{ error }

// reason is the error in an answer, or all of the answer if it has none.
func reason(text []byte) string {
	var e view.Error
	if json.Unmarshal(text, &e) == nil && e.Error != "" {
		return e.Error
	}
	return strings.TrimSpace(string(text))
}
