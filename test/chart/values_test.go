// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// property is the part of a JSON schema that the test follows.
type property struct {
	Ref        string              `json:"$ref"`
	Type       any                 `json:"type"`
	Properties map[string]property `json:"properties"`
	Closed     *any                `json:"additionalProperties"`
	Defs       map[string]property `json:"$defs"`
}

// Every key of values.yaml is in the schema, and every object of the schema with
// named properties refuses others.
func TestSchemaKnowsEveryValue(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var root property
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	var inSchema []string
	var walk func(path string, p property)
	walk = func(path string, p property) {
		if name, ok := strings.CutPrefix(p.Ref, "#/$defs/"); ok {
			p = root.Defs[name]
		}
		if len(p.Properties) > 0 && (p.Closed == nil || *p.Closed != false) {
			t.Errorf("schema %s lets unknown keys pass", path)
		}
		if len(p.Properties) == 0 || isFree(path) {
			inSchema = append(inSchema, path)
			return
		}
		for key, child := range p.Properties {
			walk(path+"."+key, child)
		}
	}
	walk("", root)
	inSchema = slices.DeleteFunc(inSchema, func(path string) bool { return path == ".global" })

	var inValues []string
	var descend func(path string, value any)
	descend = func(path string, value any) {
		children, isMap := value.(map[string]any)
		if !isMap || isFree(path) || len(children) == 0 {
			inValues = append(inValues, path)
			return
		}
		for key, child := range children {
			descend(path+"."+key, child)
		}
	}
	descend("", values(t))
	slices.Sort(inSchema)
	slices.Sort(inValues)
	if diff := cmp.Diff(inSchema, inValues); diff != "" {
		t.Errorf("the schema (-) and values.yaml (+) differ:\n%s", diff)
	}
}

// isFree says whether the value is the user's to fill with keys of Kubernetes'.
func isFree(path string) bool {
	last := path[strings.LastIndex(path, ".")+1:]
	return slices.Contains([]string{
		"resources", "nodeSelector", "affinity", "namespaceSelector", "seLinuxOptions", "updateStrategy",
		"labels", "annotations", "podLabels", "podAnnotations",
	}, last)
}

// values are the chart's defaults.
func values(t *testing.T) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := yaml.UnmarshalStrict(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}
