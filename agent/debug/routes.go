// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/agent/healthcheck"
)

// route is a method and a path, and what answers there.
type route struct {
	method, path string
	serve        http.HandlerFunc
	// keys are those that its query may have; nil if serve looks after them.
	keys []string
	// private routes are on the unix socket alone: they change something, or have others
	// work for the request.
	private bool
	// heavy ones are served few at a time, and stream ones are counted by themselves.
	heavy, stream bool
}

// routes are all there are.
func (f *front) routes() []route {
	lists := []string{"limit", "continue", "namespace"}
	none := []string{}
	all := []route{
		{method: "GET", path: "/v1/summary", keys: none, serve: answer(func(*http.Request) (any, error) { return f.source.Summary(), nil })},
		{method: "GET", path: "/v1/pods", keys: lists, serve: answer(f.pods)},
		{method: "GET", path: "/v1/services", keys: append(lists, "inUse"), serve: answer(f.services)},
		{method: "GET", path: "/v1/services/{namespace}/{name}", keys: none, serve: answer(f.service)},
		{method: "GET", path: "/v1/frontends", keys: append(lists, "inUse", "service", "class"), serve: answer(f.frontends)},
		{method: "GET", path: "/v1/redirect", keys: none, serve: answer(func(*http.Request) (any, error) { return f.source.Redirect(), nil })},
		{method: "GET", path: "/v1/xds", keys: []string{"limit", "continue", "kind", "refused"}, serve: answer(f.xds)},
		{method: "GET", path: "/v1/flows", stream: true, serve: f.flows},
		{method: "GET", path: "/v1/config", keys: none, serve: answer(func(*http.Request) (any, error) { return f.source.Config(), nil })},
		{method: "GET", path: "/v1/log-level", keys: none, serve: answer(f.getLevels)},
		{method: "PUT", path: "/v1/log-level", private: true, keys: none, serve: answer(f.putLevels)},
		{method: "DELETE", path: "/v1/log-level", private: true, keys: none, serve: answer(f.resetLevels)},
		{method: "GET", path: "/v1/openapi.yaml", keys: none, serve: serveSpec},
		{method: "GET", path: healthcheck.LivePath, serve: check(f.source.Health.Live)},
		{method: "GET", path: healthcheck.ReadyPath, serve: check(f.source.Health.Ready)},
	}
	for path, q := range map[string]Question{"/v1/why": f.source.Why, "/v1/advise": f.source.Advise} {
		if q != nil {
			all = append(all, route{method: "GET", path: path, heavy: true, serve: f.question(q)})
		}
	}
	if f.source.Metrics != nil {
		all = append(all, route{method: "GET", path: "/metrics", serve: f.source.Metrics.ServeHTTP})
	}
	return slices.Concat(all, f.envoyRoutes(), f.pprofRoutes())
}

// envoyRoutes pass on pages of Envoy's admin interface that change nothing. Envoy's main
// thread makes them, which may take it a while.
func (f *front) envoyRoutes() []route {
	var all []route
	for page, keys := range map[string][]string{
		"config_dump": {"resource", "mask", "name_regex", "include_eds"},
		"clusters":    {"format", "filter"},
		"listeners":   {"format"},
		"stats":       {"filter", "format", "usedonly", "type", "histogram_buckets"},
	} {
		all = append(all, route{method: "GET", path: "/v1/envoy/" + page, keys: keys, private: true, heavy: true, serve: f.envoyPage(page)})
	}
	return all
}

// pprofRoutes are the Go runtime's profiles, if they are asked for.
func (f *front) pprofRoutes() []route {
	if !f.pprof {
		return nil
	}
	return []route{
		{method: "GET", path: "/debug/pprof/", private: true, heavy: true, serve: pprof.Index},
		{method: "GET", path: "/debug/pprof/profile", private: true, heavy: true, serve: pprof.Profile},
		{method: "GET", path: "/debug/pprof/trace", private: true, heavy: true, serve: pprof.Trace},
		{method: "GET", path: "/debug/pprof/symbol", private: true, heavy: true, serve: pprof.Symbol},
	}
}

// handler serves the routes.
func (f *front) handler() http.Handler {
	byPath := map[string]map[string]route{}
	for _, r := range f.routes() {
		if byPath[r.path] == nil {
			byPath[r.path] = map[string]route{}
		}
		byPath[r.path][r.method] = r
	}
	mux := http.NewServeMux()
	for path, methods := range byPath {
		mux.Handle(path, f.methods(methods))
	}
	mux.Handle("/", f.methods(map[string]route{"GET": {serve: f.page()}}))
	guarded := guard(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Probes name no host, and are told nothing of interest.
		if r.URL.Path == healthcheck.LivePath || r.URL.Path == healthcheck.ReadyPath {
			mux.ServeHTTP(w, r)
			return
		}
		guarded.ServeHTTP(w, r)
	})
}

// methods serves a path by the request's method.
func (f *front) methods(by map[string]route) http.Handler {
	var allowed []string
	for method := range by {
		allowed = append(allowed, method)
	}
	slices.Sort(allowed)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		one, ok := by[method]
		if !ok {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			fail(w, http.StatusMethodNotAllowed, fmt.Errorf("%s is not among the methods of this path: %s", r.Method, strings.Join(allowed, ", ")))
			return
		}
		f.serve(one, w, r)
	})
}

// serve answers a request if this listener has the route, and room for it.
func (f *front) serve(to route, w http.ResponseWriter, r *http.Request) {
	if to.private && !f.private {
		fail(w, http.StatusForbidden, fmt.Errorf("%s %s is answered on the agent's unix socket alone", r.Method, r.URL.Path))
		return
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	for key := range query {
		if to.keys != nil && !slices.Contains(to.keys, key) {
			fail(w, http.StatusBadRequest, fmt.Errorf("unknown query key %q: want %s", key, orNone(to.keys)))
			return
		}
	}
	busy, timeout := f.requests, answerTimeout
	if to.heavy {
		busy, timeout = f.heavy, heavyTimeout
	}
	if !to.stream {
		if !busy.take() {
			fail(w, http.StatusServiceUnavailable, errBusy)
			return
		}
		defer busy.release()
	}
	// A client that doesn't read must not hold the request for ever.
	_ = f.deadline(w, timeout) // Not all writers of tests have one.
	to.serve(w, r)
}

func (f *front) deadline(w http.ResponseWriter, timeout time.Duration) error {
	return http.NewResponseController(w).SetWriteDeadline(f.now().Add(timeout))
}

func orNone(keys []string) string {
	if len(keys) == 0 {
		return "none"
	}
	return "one of " + strings.Join(keys, ", ")
}
