// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGoldens(t *testing.T) {
	for name, file := range cases(t) {
		t.Run(name, func(t *testing.T) {
			golden(t, name+".golden.yaml", render(t, "--values", file))
		})
	}
}

// A golden whose values are gone would pass for ever.
func TestNoOrphans(t *testing.T) {
	known := cases(t)
	files, err := filepath.Glob("testdata/*.golden.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name, _, _ := strings.Cut(filepath.Base(file), ".golden.")
		if _, ok := known[name]; ok {
			continue
		}
		if *update {
			if err := os.Remove(file); err != nil {
				t.Error(err)
			}
			continue
		}
		t.Errorf("%s has no values file", file)
	}
}

func TestNotes(t *testing.T) {
	for name, file := range cases(t) {
		t.Run(name, func(t *testing.T) {
			out, failure := helm(t, []string{"install", "nodevoy"}, "--dry-run=client", "--output", "json",
				"--namespace", "nodevoy-system", "--values", file)
			if failure != "" {
				t.Fatal(failure)
			}
			var release struct {
				Info struct {
					Notes string `json:"notes"`
				} `json:"info"`
			}
			if err := json.Unmarshal(out, &release); err != nil {
				t.Fatalf("%v in %s", err, out)
			}
			golden(t, name+".golden.txt", []byte(strings.TrimSpace(release.Info.Notes)+"\n"))
		})
	}
}

func TestLint(t *testing.T) {
	for name, file := range cases(t) {
		t.Run(name, func(t *testing.T) {
			if out, failure := helm(t, []string{"lint", "--strict"}, "--values", file); failure != "" {
				t.Errorf("%s%s", out, failure)
			}
		})
	}
}
