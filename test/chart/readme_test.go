// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// row is one value of values.yaml: its path, its default as JSON, and the
// comment above it.
type row struct {
	path, value, text string
}

// rows reads the comments of values.yaml that begin with two dashes. Each is
// about the key in the line after it, two spaces deeper for each level.
func rows(t *testing.T) []row {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`^( *)([A-Za-z0-9]+):`)
	all := values(t)
	var found []row
	var path, comment []string
	for n, line := range strings.Split(string(text), "\n") {
		trimmed := strings.TrimSpace(line)
		if words, ok := strings.CutPrefix(trimmed, "# -- "); ok {
			comment = []string{words}
			continue
		}
		if words, ok := strings.CutPrefix(trimmed, "# "); ok && comment != nil {
			comment = append(comment, words)
			continue
		}
		m := key.FindStringSubmatch(line)
		if m == nil {
			if comment != nil {
				t.Fatalf("values.yaml:%d: a comment that is about no value", n)
			}
			continue
		}
		path = append(path[:min(len(path), len(m[1])/2)], m[2])
		if comment == nil {
			continue
		}
		value, err := lookup(all, path)
		if err != nil {
			t.Fatalf("values.yaml:%d: %v", n+1, err)
		}
		found = append(found, row{strings.Join(path, "."), value, strings.Join(comment, " ")})
		comment = nil
	}
	return found
}

// lookup is the value at a path, as JSON.
func lookup(all map[string]any, path []string) (string, error) {
	var value any = all
	for _, key := range path {
		children, _ := value.(map[string]any)
		child, ok := children[key]
		if !ok {
			return "", fmt.Errorf("%s is not where its comment is", strings.Join(path, "."))
		}
		value = child
	}
	text, err := json.Marshal(value)
	return string(text), err
}

// table is the README's.
func table(rows []row) string {
	var b strings.Builder
	b.WriteString("| value | default | what it is |\n|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", r.path, r.value, strings.ReplaceAll(r.text, "|", `\|`))
	}
	return b.String()
}

func TestReadmeTable(t *testing.T) {
	const begin, end = "<!-- values: go test ./test/chart -run Readme -update -->\n", "<!-- end of values -->\n"
	path := filepath.Join(chartDir, "README.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", path)
	}
	want := before + begin + table(rows(t)) + end + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("the table is not that of values.yaml (-want +got):\n%s", diff)
	}
}

// Every value has its row, or is inside of one that has.
func TestEveryValueIsDescribed(t *testing.T) {
	described := map[string]bool{}
	for _, r := range rows(t) {
		described[r.path] = true
	}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		if described[path] {
			return
		}
		children, isMap := value.(map[string]any)
		if !isMap {
			t.Errorf("%s has no description", path)
			return
		}
		for key, child := range children {
			walk(strings.TrimPrefix(path+"."+key, "."), child)
		}
	}
	walk("", values(t))
}
