// SPDX-License-Identifier: Apache-2.0

package debug

import (
	_ "embed" // openapi.yaml
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// spec describes the endpoint.
//
//go:embed openapi.yaml
var spec []byte

// serveSpec serves it.
func serveSpec(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(spec) // Fails when the client has gone.
}

// page serves the page and its files, or else a list of links.
func (f *front) page() http.HandlerFunc {
	if f.source.Page == nil {
		return f.links()
	}
	files := http.FileServerFS(f.source.Page)
	return func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		if name == "" {
			name = "index.html"
		}
		if info, err := fs.Stat(f.source.Page, name); err != nil || info.IsDir() {
			noSuchPath(w, r)
			return
		}
		files.ServeHTTP(w, r)
	}
}

// links lists what can be looked at here.
func (f *front) links() http.HandlerFunc {
	list := template.Must(template.New("links").Parse(`<!doctype html><meta charset="utf-8"><title>nodevoy</title>
<h1>nodevoy</h1>
<ul>{{range .}}<li><a href="{{.}}">{{.}}</a></li>{{end}}</ul>
`))
	var paths []string
	for _, r := range f.routes() {
		if r.method == http.MethodGet && (f.private || !r.private) && !strings.Contains(r.path, "{") {
			paths = append(paths, r.path)
		}
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			noSuchPath(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = list.Execute(w, paths) // Fails when the client has gone.
	}
}

func noSuchPath(w http.ResponseWriter, r *http.Request) {
	fail(w, http.StatusNotFound, fmt.Errorf("there is no %s here; /v1/openapi.yaml has all paths", r.URL.Path))
}
