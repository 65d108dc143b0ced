// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/test/openapitest"
)

// TestOpenAPI holds openapi.yaml against the handler: it has every path, method and key
// of a query, and no other, and every answer is as it says.
func TestOpenAPI(t *testing.T) {
	doc := openapitest.New(t, spec)
	f := newFront(t, sampleSource(), true)
	h := f.handler()
	described := map[string]bool{}
	for path, methods := range doc.Paths {
		for method := range methods {
			described[strings.ToUpper(method)+" "+path] = true
		}
	}
	for _, r := range f.routes() {
		name := r.method + " " + r.path
		if !described[name] {
			t.Errorf("%s is not described", name)
			continue
		}
		delete(described, name)
		operation := doc.Paths[r.path][strings.ToLower(r.method)]
		if operation.Private != r.private {
			t.Errorf("%s: described as private %v, is %v", name, operation.Private, r.private)
		}
		if keys := slices.Sorted(slices.Values(r.keys)); r.keys != nil && !slices.Equal(keys, doc.QueryKeys(operation)) {
			t.Errorf("%s: described with the keys %q, takes %q", name, doc.QueryKeys(operation), keys)
		}
		if strings.HasPrefix(r.path, "/debug/pprof/") {
			continue // The runtime's own, and slow.
		}
		body := ""
		if r.method == http.MethodPut {
			body = `{"agent":"info","envoy":"info","for":"1m"}`
		}
		target := strings.NewReplacer("{namespace}", "shop", "{name}", "cart").Replace(r.path)
		w := ask(h, r.method, target, body)
		if err := doc.Check(r.method, r.path, w.Code, w.Header().Get("Content-Type"), w.Body.String()); err != nil {
			t.Errorf("%s: %d %s: %v", name, w.Code, w.Body, err)
		}
		if w.Code != http.StatusOK && r.path != "/readyz" && r.path != "/v1/advise" {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	for name := range described {
		t.Errorf("%s is described and not answered", name)
	}
}
