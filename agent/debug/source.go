// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/flow"
)

// Source is what is shown. Its functions answer from what has been published, so that
// they wait for nothing, and may be called at any time and concurrently.
type Source struct {
	Summary   func() view.Summary
	Pods      func(view.Query) view.List[view.Pod]
	Services  func(view.Query) view.List[view.Service]
	Service   func(namespace, name string) (view.ServiceDetail, bool)
	Frontends func(view.Query) (view.List[view.Frontend], error)
	Redirect  func() view.RedirectPlan
	XDS       func(view.Query) view.XDS
	Config    func() view.Config
	Flows     *flow.Log
	Levels    Levels
	// Envoy reads a page of Envoy's admin interface.
	Envoy func(ctx context.Context, page string, query url.Values) (EnvoyPage, error)
	// Why and Advise answer /v1/why and /v1/advise; there is no such path if they are nil.
	Why, Advise Question
	// Metrics serves /metrics.
	Metrics http.Handler
	Health  Health
	// Page is served at /, from its index.html on; a list of links if it is nil.
	Page fs.FS
}

// Levels are the log levels of the agent and of Envoy.
type Levels interface {
	Get(ctx context.Context) view.LogLevel
	// Set changes them for a while, and Reset ends that. The error wraps ErrInvalid if the
	// request can't be meant as it is.
	Set(ctx context.Context, to view.SetLogLevel) error
	Reset(ctx context.Context) error
}

// Question answers a query of a URL with something that is then JSON. It must end with
// ctx. An error that wraps ErrInvalid or ErrNotFound is the asker's.
type Question func(ctx context.Context, query url.Values) (any, error)

// EnvoyPage is a page of Envoy's admin interface, which the receiver closes.
type EnvoyPage struct {
	ContentType string
	io.ReadCloser
}

var (
	// ErrInvalid is wrapped by errors about what was asked.
	ErrInvalid = errors.New("invalid request")
	// ErrNotFound is wrapped by errors about what there is not.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable is wrapped by errors about a part that doesn't answer, such as Envoy.
	ErrUnavailable = errors.New("not available")
)
