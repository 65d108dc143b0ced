// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/http"
	"sync/atomic"

	"go.uber.org/zap"
)

// reach knows whether the API server can be reached. client-go tries again
// after a refused connection without a word to anybody.
type reach struct {
	log *zap.Logger
	// err is why the last request got no answer; nil when it got one.
	err atomic.Pointer[error]
}

// wrap has every request seen.
func (r *reach) wrap(next http.RoundTripper) http.RoundTripper { return reachTripper{r, next} }

// seen notes how a request went. One that we ended ourselves says nothing.
func (r *reach) seen(req *http.Request, err error) {
	switch {
	case err == nil:
		if r.err.Swap(nil) != nil {
			r.log.Info("API server answers again")
		}
	case req.Context().Err() != nil:
	case r.err.Swap(&err) == nil:
		r.log.Warn("API server can't be reached, what is known stays in force", zap.String("host", req.URL.Host), zap.Error(err))
	}
}

// why is why the API server can't be reached; nil when it can, or when nothing
// has been asked yet.
func (r *reach) why() error {
	if err := r.err.Load(); err != nil {
		return *err
	}
	return nil
}

// reachTripper passes requests on and tells what came of them.
type reachTripper struct {
	reach *reach
	next  http.RoundTripper
}

func (t reachTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	t.reach.seen(req, err)
	return resp, err
}

// WrappedRoundTripper lets client-go see the transport.
func (t reachTripper) WrappedRoundTripper() http.RoundTripper { return t.next }
