// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"

	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// Status is the summary, with all pods, and with the frontends in use or, if all is set,
// every one.
func (a Agent) Status(ctx context.Context, all bool) (view.Status, error) {
	var v view.Status
	if err := a.Get(ctx, "/v1/summary", nil, &v.Summary); err != nil {
		return v, err
	}
	query := url.Values{}
	if !all {
		query.Set("inUse", "true")
		v.Limits = nil
	}
	var err error
	if v.Pods, err = List[view.Pod](ctx, a, "/v1/pods", nil); err != nil {
		return v, err
	}
	v.Frontends, err = List[view.Frontend](ctx, a, "/v1/frontends", query)
	return v, err
}

// List is a whole list, of all its parts.
func List[T any](ctx context.Context, a Agent, path string, query url.Values) ([]T, error) {
	all, next := []T{}, maps.Clone(query)
	if next == nil {
		next = url.Values{}
	}
	for {
		var part view.List[T]
		if err := a.Get(ctx, path, next, &part); err != nil {
			return nil, err
		}
		if all = append(all, part.Items...); part.Continue == "" {
			return all, nil
		}
		next.Set("continue", part.Continue)
	}
}

// SetLogLevel changes what the agent and Envoy log, or changes it back if to is nil, and
// returns what they log now.
func (a Agent) SetLogLevel(ctx context.Context, to *view.SetLogLevel) (view.LogLevel, error) {
	var now view.LogLevel
	method, text := http.MethodDelete, []byte{}
	if to != nil {
		var err error
		if text, err = json.Marshal(to); err != nil {
			return now, fmt.Errorf("write the request for log levels: %w", err)
		}
		method = http.MethodPut
	}
	body, err := a.request(ctx, method, "/v1/log-level", bytes.NewReader(text))
	if err != nil {
		return now, err
	}
	err = errors.Join(json.NewDecoder(body).Decode(&now), body.Close())
	return now, err
}
