// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// kubernetesSchemas writes a strict JSON schema for every kind of Kubernetes
// into a directory, named as kubeconform looks for them, and returns it.
// kubeconform would fetch such files from the network; these are made of the
// OpenAPI document in the Kubernetes module that test/cluster/tools pins.
func kubernetesSchemas(t *testing.T) string {
	t.Helper()
	out, failure := run(t, nil, "go", "-C", "../cluster/tools", "mod", "download", "-json", "k8s.io/kubernetes")
	if failure != "" {
		t.Fatalf("find the Kubernetes module: %s%s", out, failure)
	}
	var module struct{ Dir, Version string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	if module.Version != "v"+kubeVersion {
		t.Fatalf("the tests speak of Kubernetes v%s, test/cluster/tools has %s", kubeVersion, module.Version)
	}
	text, err := os.ReadFile(filepath.Join(module.Dir, "api/openapi-spec/swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	var api struct {
		Definitions map[string]map[string]any `json:"definitions"`
	}
	if err := json.Unmarshal(text, &api); err != nil {
		t.Fatal(err)
	}
	for name, definition := range api.Definitions {
		tighten(name, definition)
	}
	dir := t.TempDir()
	for name, definition := range api.Definitions {
		for _, file := range schemaFiles(definition) {
			schema := map[string]any{"$ref": "#/definitions/" + name, "definitions": reachable(api.Definitions, name)}
			text, err := json.Marshal(schema)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, file), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// tighten makes a definition refuse unknown fields, and accept what Kubernetes
// accepts besides what its OpenAPI document says.
func tighten(name string, definition map[string]any) {
	switch {
	case strings.HasSuffix(name, ".IntOrString"), strings.HasSuffix(name, ".resource.Quantity"):
		definition["type"] = []any{"string", "number"}
	case definition["properties"] != nil && definition["additionalProperties"] == nil:
		definition["additionalProperties"] = false
	}
	// Formats such as int-or-string and byte are not those of JSON schema.
	delete(definition, "format")
}

// schemaFiles are the names under which kubeconform looks for a definition.
func schemaFiles(definition map[string]any) []string {
	kinds, _ := definition["x-kubernetes-group-version-kind"].([]any)
	var files []string
	for _, k := range kinds {
		kind, _ := k.(map[string]any)
		group, _, _ := strings.Cut(fmt.Sprint(kind["group"]), ".")
		parts := []string{fmt.Sprint(kind["kind"]), group, fmt.Sprint(kind["version"])}
		if group == "" {
			parts = []string{parts[0], parts[2]}
		}
		files = append(files, strings.ToLower(strings.Join(parts, "-"))+".json")
	}
	return files
}

// reachable are the definitions that one refers to, itself included.
func reachable(all map[string]map[string]any, name string) map[string]any {
	found := map[string]any{}
	queue := []string{name}
	for len(queue) > 0 {
		name, queue = queue[0], queue[1:]
		if _, seen := found[name]; seen {
			continue
		}
		found[name] = all[name]
		queue = append(queue, references(all[name])...)
	}
	return found
}

// references are the names of the definitions that a part of a schema refers to.
func references(part any) []string {
	var names []string
	switch part := part.(type) {
	case map[string]any:
		if ref, ok := part["$ref"].(string); ok {
			names = append(names, strings.TrimPrefix(ref, "#/definitions/"))
		}
		for _, v := range part {
			names = append(names, references(v)...)
		}
	case []any:
		for _, v := range part {
			names = append(names, references(v)...)
		}
	}
	return names
}
