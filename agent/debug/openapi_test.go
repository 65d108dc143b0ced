// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"
)

// document is the part of openapi.yaml that says what is answered where.
type document struct {
	Paths map[string]map[string]struct {
		Private    bool                       `json:"x-private"`
		Parameters []parameter                `json:"parameters"`
		Responses  map[string]json.RawMessage `json:"responses"`
	} `json:"paths"`
	Components struct {
		Parameters map[string]parameter `json:"parameters"`
	} `json:"components"`
}

type parameter struct {
	Ref  string `json:"$ref"`
	Name string `json:"name"`
	In   string `json:"in"`
}

// queryKeys are those that an operation's parameters name, sorted.
func (d *document) queryKeys(of []parameter) []string {
	keys := []string{}
	for _, p := range of {
		if name, is := strings.CutPrefix(p.Ref, "#/components/parameters/"); is {
			p = d.Components.Parameters[name]
		}
		if p.In == "query" {
			keys = append(keys, p.Name)
		}
	}
	slices.Sort(keys)
	return keys
}

// schemas checks bodies against the document. Of objects, it wants nothing that the
// document doesn't name, so that no field is forgotten there.
type schemas struct{ compiler *jsonschema.Compiler }

const documentURL = "mem:///openapi.json"

func newSchemas(t *testing.T) (schemas, *document) {
	t.Helper()
	text, err := yaml.YAMLToJSON(spec)
	if err != nil {
		t.Fatal(err)
	}
	doc := &document{}
	if err := json.Unmarshal(text, doc); err != nil {
		t.Fatal(err)
	}
	whole, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	noNulls(t, "", whole)
	closeObjects(whole)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource(documentURL, whole); err != nil {
		t.Fatal(err)
	}
	return schemas{c}, doc
}

// noNulls finds texts with a comma that are not quoted: what follows it is a key then.
func noNulls(t *testing.T, at string, in any) {
	t.Helper()
	switch v := in.(type) {
	case nil:
		t.Errorf("openapi.yaml has a key without a value: %s", at)
	case map[string]any:
		for key, inner := range v {
			noNulls(t, at+"/"+key, inner)
		}
	case []any:
		for _, inner := range v {
			noNulls(t, at, inner)
		}
	}
}

// closeObjects forbids further properties in each schema that has some.
func closeObjects(in any) {
	switch v := in.(type) {
	case map[string]any:
		_, properties := v["properties"].(map[string]any)
		if _, said := v["additionalProperties"]; properties && !said && v["type"] == "object" {
			v["additionalProperties"] = false
		}
		for _, inner := range v {
			closeObjects(inner)
		}
	case []any:
		for _, inner := range v {
			closeObjects(inner)
		}
	}
}

// check says what is wrong with an answer of an operation. A response of its own, or one
// that it shares, has a schema for each type of content.
func (s schemas) check(path, method string, response json.RawMessage, status, contentType, body string) error {
	contentType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return err
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")
	place := "#/paths/" + escape.Replace(path) + "/" + strings.ToLower(method) + "/responses/" + status
	var shared parameter
	if err := json.Unmarshal(response, &shared); err != nil {
		return err
	}
	if shared.Ref != "" {
		place = shared.Ref
	}
	schema, err := s.compiler.Compile(documentURL + place + "/content/" + escape.Replace(contentType) + "/schema")
	if err != nil {
		return err
	}
	var value any = body
	if contentType == "application/json" {
		if value, err = jsonschema.UnmarshalJSON(strings.NewReader(body)); err != nil {
			return err
		}
	}
	return schema.Validate(value)
}

// TestOpenAPI holds openapi.yaml against the handler: it has every path, method and key
// of a query, and no other, and every answer is as it says.
func TestOpenAPI(t *testing.T) {
	schemas, doc := newSchemas(t)
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
		if keys := slices.Sorted(slices.Values(r.keys)); r.keys != nil && !slices.Equal(keys, doc.queryKeys(operation.Parameters)) {
			t.Errorf("%s: described with the keys %q, takes %q", name, doc.queryKeys(operation.Parameters), keys)
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
		status := fmt.Sprint(w.Code)
		if _, is := operation.Responses[status]; !is {
			status = "default"
		}
		if err := schemas.check(r.path, r.method, operation.Responses[status], status, w.Header().Get("Content-Type"), w.Body.String()); err != nil {
			t.Errorf("%s: %d %s: %v", name, w.Code, w.Body, err)
		}
		if w.Code != http.StatusOK && r.path != "/readyz" && r.path != "/v1/advise" {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	for name := range maps.Keys(described) {
		t.Errorf("%s is described and not answered", name)
	}
}
