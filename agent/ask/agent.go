// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// ErrNotRunning says that no agent runs on a node.
var ErrNotRunning = errors.New("no agent is running")

// Dial opens a connection to an agent's debug endpoint.
type Dial func(ctx context.Context) (net.Conn, error)

// Agent is one node's agent.
type Agent struct {
	// Node is the node's name; it may be empty where there is only one.
	Node   string
	client *http.Client
}

// New makes an agent that is asked by connections of dial.
func New(node string, dial Dial) Agent {
	return Agent{Node: node, client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		// One question after another has the same connection; two at a time, two.
		MaxIdleConns: 2, MaxIdleConnsPerHost: 2, DisableCompression: true,
	}}}
}

// Socket makes the agent behind a unix socket.
func Socket(node, path string) Agent {
	return New(node, func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	})
}

// Absent makes the agent of a node that has none: whoever asks it is told so.
func Absent(node string) Agent {
	return New(node, func(context.Context) (net.Conn, error) { return nil, ErrNotRunning })
}

// Close closes idle connections.
func (a Agent) Close() { a.client.CloseIdleConnections() }

// StatusError is an answer other than 200.
type StatusError struct {
	Code int
	Text string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.Code, http.StatusText(e.Code), e.Text)
}

// maxErrorText bounds what is read of an answer that is an error.
const maxErrorText = 4 << 10

// Open requests a path, such as /v1/pods, and returns the body of an answer that is 200,
// which the caller closes.
func (a Agent) Open(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return a.request(ctx, http.MethodGet, path, http.NoBody)
}

func (a Agent) request(ctx context.Context, method, path string, content io.Reader) (io.ReadCloser, error) {
	path = "/" + strings.TrimPrefix(path, "/")
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, content)
	if err != nil {
		return nil, fmt.Errorf("make the request of %s: %w", path, err)
	}
	resp, err := a.client.Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	case errors.Is(err, ErrNotRunning):
		return nil, ErrNotRunning
	case err != nil:
		return nil, fmt.Errorf("request %s: %w", path, unwrapped(err))
	case resp.StatusCode == http.StatusOK:
		return resp.Body, nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorText))
	return nil, errors.Join(fmt.Errorf("request %s: %w", path, &StatusError{resp.StatusCode, message(text)}), err, resp.Body.Close())
}

// unwrapped is the error below what net/http says of an address that means nothing.
func unwrapped(err error) error {
	if wrapper := new(url.Error); errors.As(err, &wrapper) {
		return wrapper.Err
	}
	return err
}

// message is the error in an answer, or all of the answer if it has none.
func message(text []byte) string {
	var e view.Error
	if json.Unmarshal(text, &e) == nil && e.Error != "" {
		return e.Error
	}
	return strings.TrimSpace(string(text))
}

// Get requests a path and decodes the answer into a value.
func (a Agent) Get(ctx context.Context, path string, query url.Values, into any) (err error) {
	body, err := a.Open(ctx, path, query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("read the answer to %s: %w", path, err)
	}
	return nil
}

// maxEvent bounds one event of a stream.
const maxEvent = 1 << 20

// Event is one of a stream of server-sent events.
type Event struct {
	Name string
	Data []byte
}

// Follow requests a stream of server-sent events and calls each for all of them, until
// ctx ends, which is no error, the stream ends, or each fails.
func (a Agent) Follow(ctx context.Context, path string, query url.Values, each func(Event) error) (err error) {
	body, err := a.Open(ctx, path, query)
	if err != nil {
		return ended(ctx, err)
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEvent)
	var e Event
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "" && len(e.Data) > 0:
			if err := each(e); err != nil {
				return err
			}
			e = Event{}
		case field == "event":
			e.Name = value
		case field == "data":
			e.Data = append(e.Data, value...)
		}
	}
	if err := lines.Err(); err != nil {
		return ended(ctx, fmt.Errorf("follow %s: %w", path, err))
	}
	if ctx.Err() == nil {
		return fmt.Errorf("follow %s: %w", path, io.ErrUnexpectedEOF)
	}
	return nil
}

// ended is no error if it came from the end of ctx.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Greeting is what a program that leads to an agent writes first, once it is connected.
const Greeting = "nodevoy agent\n"
