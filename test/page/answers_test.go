// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/why"
)

// TestAnswers: the answers in testdata are of the kind that the agent gives today, each
// with the sentence of the situation in agent/why that it is named after.
func TestAnswers(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		var a why.Answer
		in := json.NewDecoder(bytes.NewReader(text))
		in.DisallowUnknownFields()
		if err := in.Decode(&a); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		golden, err := os.ReadFile("../../agent/why/testdata/" + strings.TrimSuffix(filepath.Base(file), ".json") + ".txt")
		must(t, err)
		want, _, _ := strings.Cut(string(golden), "\n")
		if d := cmp.Diff(want, string(a.Verdict)+": "+a.Sentence); d != "" {
			t.Errorf("%s (-agent/why +here):\n%s", file, d)
		}
	}
}
