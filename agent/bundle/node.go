// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/nodevoy/nodevoy/agent/ask"
)

const (
	// maxFile bounds a file, in bytes.
	maxFile = 32 << 20
	// maxParts bounds how many parts of a list are asked for.
	maxParts = 100
	// lastFlows is how many flows are asked for.
	lastFlows = "1000"
)

// part is a file of a node's directory and where it comes from.
type part struct {
	file, path string
	query      url.Values
	// list is for answers in parts, flows for those that callers had a hand in.
	list, flows bool
}

// parts are all there are.
func parts() []part {
	return []part{
		{file: "summary.json", path: "/v1/summary"},
		{file: "config.json", path: "/v1/config"},
		{file: "log-level.json", path: "/v1/log-level"},
		{file: "redirect.json", path: "/v1/redirect"},
		{file: "pods.json", path: "/v1/pods", list: true},
		{file: "services.json", path: "/v1/services", list: true},
		{file: "frontends-in-use.json", path: "/v1/frontends", query: url.Values{"inUse": {"true"}}, list: true},
		{file: "xds.json", path: "/v1/xds", list: true},
		{file: "flows.json", path: "/v1/flows", query: url.Values{"last": {lastFlows}}, flows: true},
		{file: "advise.json", path: "/v1/advise"},
		{file: "metrics.txt", path: "/metrics"},
		{file: "envoy/config_dump.json", path: "/v1/envoy/config_dump", query: url.Values{"include_eds": {""}}},
		{file: "envoy/clusters.json", path: "/v1/envoy/clusters", query: url.Values{"format": {"json"}}},
		{file: "envoy/listeners.json", path: "/v1/envoy/listeners", query: url.Values{"format": {"json"}}},
		{file: "envoy/stats.txt", path: "/v1/envoy/stats"},
	}
}

// Files writes all that an agent tells, in files whose names begin with prefix, and
// returns how many it wrote. What could not be had is in the error, by file. One that no
// other file can do better with ends it.
func (w *Writer) Files(ctx context.Context, prefix string, a ask.Agent) (int, error) {
	var missing []error
	files := 0
	for _, p := range parts() {
		text, err := w.get(ctx, a, p)
		status := new(ask.StatusError)
		if err != nil && files == 0 && !errors.As(err, &status) {
			return 0, err
		}
		// A part of a file is better than none, if it says so.
		if err != nil {
			missing = append(missing, fmt.Errorf("%s: %w", p.file, err))
		}
		if len(text) == 0 {
			continue
		}
		if err := w.Add(prefix+p.file, text); err != nil {
			return files, errors.Join(append(missing, err)...)
		}
		files++
	}
	return files, errors.Join(missing...)
}

func (w *Writer) get(ctx context.Context, a ask.Agent, p part) ([]byte, error) {
	if p.list {
		return w.list(ctx, a, p)
	}
	text, err := read(ctx, a, p.path, p.query)
	if err != nil && !errors.Is(err, errTooLarge) {
		return nil, err
	}
	if p.flows {
		text, flowsErr := w.redactor.flows(text)
		return text, errors.Join(err, flowsErr)
	}
	return w.redactor.text(text), err
}

// errTooLarge says that only the beginning of a file is there.
var errTooLarge = errors.New("too large, and cut off")

// read reads an answer, up to a bound.
func read(ctx context.Context, a ask.Agent, path string, query url.Values) (text []byte, err error) {
	body, err := a.Open(ctx, path, query)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	text, err = io.ReadAll(io.LimitReader(body, maxFile+1))
	if err == nil && len(text) > maxFile {
		return text[:maxFile], errTooLarge
	}
	return text, err
}

// list reads an answer in parts, one JSON document a line.
func (w *Writer) list(ctx context.Context, a ask.Agent, p part) ([]byte, error) {
	var all []byte
	query := url.Values{}
	for key, values := range p.query {
		query[key] = values
	}
	for range maxParts {
		text, err := read(ctx, a, p.path, query)
		if err != nil {
			return all, err
		}
		if all = append(all, w.redactor.text(text)...); len(all) > maxFile {
			return all[:maxFile], errTooLarge
		}
		var next struct{ Continue string }
		if err := json.Unmarshal(text, &next); err != nil || next.Continue == "" {
			return all, err
		}
		query.Set("continue", next.Continue)
	}
	return all, errTooLarge
}
