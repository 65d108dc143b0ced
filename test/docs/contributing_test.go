// SPDX-License-Identifier: Apache-2.0

// Package docs holds the documents to the tree that they describe.
package docs

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPackageTable: CONTRIBUTING.md says one sentence about each package of the
// product, in the order of their paths, and about no other.
func TestPackageTable(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "./agent/...", "./cmd/...", "./redirect/...", "./xds/...")
	list.Dir = "../.."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/nodevoy/nodevoy/"
	var want []string
	for path := range strings.FieldsSeq(string(out)) {
		want = append(want, strings.TrimPrefix(path, module))
	}
	text, err := os.ReadFile("../../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range regexp.MustCompile("(?m)^\\| `((?:agent|cmd|redirect|xds)[a-z0-9/-]*)` \\| .+ \\|$").FindAllStringSubmatch(string(text), -1) {
		got = append(got, row[1])
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("packages in CONTRIBUTING.md (-want +got):\n%s", d)
	}
}
