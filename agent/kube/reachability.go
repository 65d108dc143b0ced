// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/http"
	"sync/atomic"

	"go.uber.org/zap"
)

// reachability is whether the API server answers. client-go tries again after
// a refused connection without telling anybody.
type reachability struct {
	log *zap.Logger
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

// RoundTrip is of http.RoundTripper. A request that we ended ourselves says nothing
// about the server, nor does one that failed while others got an answer.
func (t observedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	before := t.answers.Load()
	resp, err := t.next.RoundTrip(req)
	switch {
	case err == nil:
		t.answers.Add(1)
		if t.err.Swap(nil) != nil {
			t.log.Info("API server answers again")
		}
	case req.Context().Err() != nil, t.answers.Load() != before:
	case t.err.Swap(&err) == nil:
		t.log.Warn("API server can't be reached, what is known stays in force",
			zap.String("host", req.URL.Host), zap.Error(err))
	}
	return resp, err
}

// WrappedRoundTripper lets client-go see the transport.
func (t observedTransport) WrappedRoundTripper() http.RoundTripper { return t.next }
