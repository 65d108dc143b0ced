// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// answerPatience is how long a watch may take to begin: in an API server that is
// busy it may queue for 15 s.
const answerPatience = 20 * time.Second

// errNoAnswer is told of a watch that neither begins nor is refused.
var errNoAnswer = errors.New("the API server does not answer the request for a watch")

// reachability is whether the API server answers. client-go tries again after
// a refused connection without telling anybody.
type reachability struct {
	log *zap.Logger
	// answer is answerPatience. Tests shorten it.
	answer time.Duration
	// err is why the last request got no answer; nil when it got one.
	err atomic.Pointer[error]
	// answers counts the requests that got one.
	answers atomic.Uint64
}

// wrap observes every request of a transport.
func (r *reachability) wrap(next http.RoundTripper) http.RoundTripper {
	return observedTransport{r, next}
}

// problem is why the API server can't be reached; nil when it can, or when
// nothing has been asked yet.
func (r *reachability) problem() error {
	if err := r.err.Load(); err != nil {
		return *err
	}
	return nil
}

// observedTransport passes requests on and notes what came of them.
type observedTransport struct {
	*reachability
	next http.RoundTripper
}

// RoundTrip is of http.RoundTripper. A request that we ended ourselves, also because
// it got no answer, says nothing about the server, nor does one that failed while
// others got an answer.
func (t observedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	before := t.answers.Load()
	resp, err := t.ask(req)
	switch {
	case err == nil:
		t.answers.Add(1)
		if t.err.Swap(nil) != nil {
			t.log.Info("API server answers again")
		}
	case req.Context().Err() != nil, errors.Is(err, errNoAnswer), t.answers.Load() != before:
	case t.err.Swap(&err) == nil:
		t.log.Warn("API server can't be reached, what is known stays in force",
			zap.String("host", req.URL.Host), zap.Error(err))
	}
	return resp, err
}

// ask passes a request on. A watch that has not begun in time fails, which client-go
// doesn't see to; one that has begun may be quiet. A list is not bounded: the API
// server begins to answer when it has all of it. feed.health tells if that is long.
func (t observedTransport) ask(req *http.Request) (*http.Response, error) {
	if !req.URL.Query().Has("watch") {
		return t.next.RoundTrip(req)
	}
	ctx, end := context.WithCancelCause(req.Context())
	late := time.AfterFunc(t.answer, func() { end(errNoAnswer) })
	resp, err := t.next.RoundTrip(req.WithContext(ctx))
	late.Stop()
	if err != nil {
		if errors.Is(context.Cause(ctx), errNoAnswer) {
			err = errNoAnswer
		}
		end(nil)
		return nil, err
	}
	resp.Body = &endingBody{resp.Body, end}
	return resp, nil
}

// endingBody ends the request with its response.
type endingBody struct {
	io.ReadCloser
	end context.CancelCauseFunc
}

// Close is of io.Closer.
func (b *endingBody) Close() error {
	defer b.end(nil)
	return b.ReadCloser.Close()
}

// WrappedRoundTripper lets client-go see the transport.
func (t observedTransport) WrappedRoundTripper() http.RoundTripper { return t.next }
