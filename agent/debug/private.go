// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// maxBody bounds what a client may send, in bytes.
const maxBody = 4096

func (f *front) getLevels(r *http.Request) (any, error) { return f.source.Levels.Get(r.Context()), nil }

func (f *front) putLevels(r *http.Request) (any, error) {
	var to view.SetLogLevel
	in := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	in.DisallowUnknownFields()
	if err := in.Decode(&to); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := f.source.Levels.Set(r.Context(), to); err != nil {
		return nil, err
	}
	return f.source.Levels.Get(r.Context()), nil
}

func (f *front) resetLevels(r *http.Request) (any, error) {
	if err := f.source.Levels.Reset(r.Context()); err != nil {
		return nil, err
	}
	return f.source.Levels.Get(r.Context()), nil
}

// question answers with what q does. What looks at more than published state is for
// the owner of the socket.
func (f *front) question(q Question) http.HandlerFunc {
	return answer(func(r *http.Request) (any, error) {
		values := r.URL.Query()
		if values.Has("live") && !f.private {
			return nil, fmt.Errorf("live is answered on the agent's unix socket alone: %w", ErrInvalid)
		}
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		return q(ctx, values)
	})
}

// envoyPage passes on a page of Envoy's admin interface.
func (f *front) envoyPage(page string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		body, err := f.source.Envoy(ctx, page, r.URL.Query())
		if err != nil {
			fail(w, statusOf(err), err)
			return
		}
		w.Header().Set("Content-Type", body.ContentType)
		_, err = io.Copy(w, body)
		if errors.Join(err, body.Close()) != nil {
			// The client must not take what it has for all.
			panic(http.ErrAbortHandler)
		}
	}
}
