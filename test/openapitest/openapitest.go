// SPDX-License-Identifier: Apache-2.0

// Package openapitest checks answers of an API against its description.
package openapitest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"
)

// Document is a description of an API, and checks what the API answers.
type Document struct {
	// Paths are its operations, by path and method in small letters.
	Paths    map[string]map[string]Operation
	shared   map[string]parameter
	compiler *jsonschema.Compiler
}

// Operation is what is answered to one method of a path.
type Operation struct {
	Private    bool                       `json:"x-private"`
	Optional   bool                       `json:"x-optional"`
	Parameters []parameter                `json:"parameters"`
	Responses  map[string]json.RawMessage `json:"responses"`
}
type parameter struct {
	Ref  string `json:"$ref"`
	Name string `json:"name"`
	In   string `json:"in"`
}

// QueryKeys are those that an operation's query may have, sorted.
func (d *Document) QueryKeys(o Operation) []string {
	keys := []string{}
	for _, p := range o.Parameters {
		if name, is := strings.CutPrefix(p.Ref, "#/components/parameters/"); is {
			p = d.shared[name]
		}
		if p.In == "query" {
			keys = append(keys, p.Name)
		}
	}
	slices.Sort(keys)
	return keys
}

const documentURL = "mem:///openapi.json"

// New reads a description of version 3.1 in YAML. Of objects, it wants nothing that the
// description doesn't name, so that no field is forgotten there.
func New(t *testing.T, spec []byte) *Document {
	t.Helper()
	text, err := yaml.YAMLToJSON(spec)
	if err != nil {
		t.Fatal(err)
	}
	var parts struct {
		Paths      map[string]map[string]Operation `json:"paths"`
		Components struct {
			Parameters map[string]parameter `json:"parameters"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &parts); err != nil {
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
	return &Document{Paths: parts.Paths, shared: parts.Components.Parameters, compiler: c}
}

// noNulls finds texts with a comma that are not quoted: what follows it is a key then.
func noNulls(t *testing.T, at string, in any) {
	t.Helper()
	switch v := in.(type) {
	case nil:
		t.Errorf("the description has a key without a value: %s", at)
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

// Check says what is wrong with an answer to a method of a path, which is as the
// description has it.
func (d *Document) Check(method, path string, status int, contentType, body string) error {
	contentType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return err
	}
	responses, code := d.Paths[path][strings.ToLower(method)].Responses, strconv.Itoa(status)
	if _, named := responses[code]; !named {
		code = "default"
	}
	// A response of its own, or one that operations share.
	var shared parameter
	if err := json.Unmarshal(responses[code], &shared); err != nil {
		return fmt.Errorf("%s %s has no response for status %d: %w", method, path, status, err)
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")
	place := cmp.Or(shared.Ref, "#/paths/"+escape.Replace(path)+"/"+strings.ToLower(method)+"/responses/"+code)
	schema, err := d.compiler.Compile(documentURL + place + "/content/" + escape.Replace(contentType) + "/schema")
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

// CheckAnswers asks for every path that can be read, of a server at this URL, with these
// values in the place of the path's names, and wants the answers to be as described. What
// is private is refused unless private is set. Optional ones are left out.
func (d *Document) CheckAnswers(t *testing.T, c *http.Client, url string, private bool, names *strings.Replacer) {
	t.Helper()
	for path, methods := range d.Paths {
		operation, reads := methods["get"]
		if !reads || operation.Optional {
			continue
		}
		resp, err := c.Get(url + names.Replace(path))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if err := d.Check(http.MethodGet, path, resp.StatusCode, resp.Header.Get("Content-Type"), string(body)); err != nil {
			t.Errorf("%s: %s %.500s: %v", path, resp.Status, body, err)
		}
		want := []int{http.StatusOK}
		switch {
		case operation.Private && !private:
			want = []int{http.StatusForbidden}
		case len(operation.Responses) > 1 && operation.Responses["503"] != nil:
			want = append(want, http.StatusServiceUnavailable)
		}
		if !slices.Contains(want, resp.StatusCode) {
			t.Errorf("%s: %s %.500s", path, resp.Status, body)
		}
	}
}
