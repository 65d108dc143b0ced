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

// observe notes how a request went. One that we ended ourselves says nothing, nor
// does one that failed while others got an answer: answers is their number before
// it began.
func (r *reachability) observe(req *http.Request, answers uint64, err error) {
	switch {
	case err == nil:
		r.answers.Add(1)
		if r.err.Swap(nil) != nil {
			r.log.Info("API server answers again")
		}
	case req.Context().Err() != nil, r.answers.Load() != answers:
	case r.err.Swap(&err) == nil:
		r.log.Warn("API server can't be reached, what is known stays in force", zap.String("host", req.URL.Host), zap.Error(err))
	}
}

// problem is why the API server can't be reached; nil when it can, or when
// nothing has been asked yet.
func (r *reachability) problem() error {
	if err := r.err.Load(); err != nil {
		return *err
	}
	return nil
}

// observedTransport passes requests on and reports what came of them.
type observedTransport struct {
	reachability *reachability
	next         http.RoundTripper
}

func (t observedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	answers := t.reachability.answers.Load()
	resp, err := t.next.RoundTrip(req)
	t.reachability.observe(req, answers, err)
	return resp, err
}

// WrappedRoundTripper lets client-go see the transport.
func (t observedTransport) WrappedRoundTripper() http.RoundTripper { return t.next }
