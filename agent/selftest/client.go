// SPDX-License-Identifier: Apache-2.0

package selftest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// ErrNotRedirected says that every request of a connection reached one backend.
var ErrNotRedirected = errors.New("one connection, one backend: the calls of this pod are not redirected")

// roundTimeout bounds one attempt, so that a lost connection doesn't use up all
// the time there is.
const roundTimeout = 10 * time.Second

// Client calls a Service and counts who answers.
type Client struct {
	// URL is what to call: http://SERVICE/.
	URL string
	// Requests is how many are sent over one connection.
	Requests int
	// Backends is how many different ones have to answer.
	Backends int
	// Pause is the time between two attempts.
	Pause time.Duration
}

// Validate says everything that is wrong with the settings, joined.
func (c Client) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if u, err := url.Parse(c.URL); err != nil || u.Scheme != "http" || u.Host == "" {
		bad("url %q: want http://SERVICE/", c.URL)
	}
	if c.Backends < 2 {
		bad("backends %d: only more than one prove anything", c.Backends)
	}
	if c.Requests < c.Backends {
		bad("requests %d: fewer than the %d backends", c.Requests, c.Backends)
	}
	if c.Pause <= 0 {
		bad("pause %s: want more than 0", c.Pause)
	}
	return errors.Join(errs...)
}

// Run tries until one connection's requests were answered by enough backends,
// and writes to out who answered. A pod is redirected a moment after it starts,
// and only its new connections are: so each attempt opens another one. When ctx
// ends first, the error is that of the last attempt.
func (c Client) Run(ctx context.Context, out io.Writer) error {
	if err := c.Validate(); err != nil {
		return err
	}
	last, said := errors.New("no attempt was finished"), ""
	for attempt := 1; ; attempt++ {
		answers, err := c.attempt(ctx)
		if err == nil && answers.backends() < c.Backends {
			err = ErrNotRedirected
		}
		if err == nil {
			return errors.Join(
				answers.report(out),
				say(out, "redirected: %d backends answered one connection, attempt %d\n", answers.backends(), attempt))
		}
		if ctx.Err() == nil {
			last = err
		}
		// The same words once a second would bury the first of them.
		if last.Error() != said {
			said = last.Error()
			if err := errors.Join(answers.report(out), say(out, "attempt %d: %v\n", attempt, last)); err != nil {
				return err
			}
		}
		timer := time.NewTimer(c.Pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("call %s: %w", c.URL, last)
		case <-timer.C:
		}
	}
}

// tally counts the requests of each answer.
type tally map[answer]int

// backends is how many different ones answered.
func (t tally) backends() int {
	names := map[string]bool{}
	for a := range t {
		names[a.Backend] = true
	}
	return len(names)
}

// attempt sends all requests over one connection.
func (c Client) attempt(ctx context.Context) (tally, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	dials, dialer := &atomic.Int32{}, &net.Dialer{}
	transport := &http.Transport{
		MaxConnsPerHost: 1,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return dialer.DialContext(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	answers := tally{}
	for n := range c.Requests {
		a, err := c.ask(ctx, client)
		if err != nil {
			return answers, err
		}
		// Several connections spread over backends without any Envoy.
		if dials.Load() > 1 {
			return nil, fmt.Errorf("the connection was closed after %d of %d requests, which proves nothing", n, c.Requests)
		}
		answers[a]++
	}
	return answers, nil
}

// ask sends one request and reads the answer to its end, so that the connection
// can be used again.
func (c Client) ask(ctx context.Context, client *http.Client) (a answer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, http.NoBody)
	if err != nil {
		return a, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return a, fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("answered %s: %.200q", resp.Status, body)
	}
	if err := json.Unmarshal(body, &a); err != nil || a.Backend == "" {
		return a, fmt.Errorf("something else than the self-test's server answered: %.200q", body)
	}
	return a, nil
}

// report writes who answered how often.
func (t tally) report(out io.Writer) error {
	if len(t) == 0 {
		return nil
	}
	byName := func(a, b answer) int {
		return cmp.Or(strings.Compare(a.Backend, b.Backend), strings.Compare(a.Peer, b.Peer))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	errs := []error{say(w, "BACKEND\tREQUESTS\tCALLED FROM\n")}
	for _, a := range slices.SortedFunc(maps.Keys(t), byName) {
		errs = append(errs, say(w, "%s\t%d\t%s\n", a.Backend, t[a], a.Peer))
	}
	return errors.Join(append(errs, w.Flush())...)
}

func say(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format, args...)
	return err
}
