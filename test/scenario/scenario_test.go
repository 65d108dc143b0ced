// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"flag"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScenarios(t *testing.T) {
	update := flag.Lookup("update").Value.String() == "true"
	var files []string
	for _, dir := range []string{"testdata", "podmode"} {
		found, err := All(dir)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, path := range files {
		s, err := Load(path, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Run(s.Name, func(t *testing.T) {
			if len(s.archive.Comment) == 0 {
				t.Error("the scenario doesn't say what it shows")
			}
			computed, err := s.Compute()
			if err != nil {
				t.Fatal(err)
			}
			again, err := s.Compute()
			if d := cmp.Diff(computed, again); err != nil || d != "" {
				t.Errorf("computed twice: %v\n%s", err, d)
			}
			if update {
				if err := s.Update(computed); err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, name := range s.Orphans() {
				t.Errorf("section %s is nobody's: run with -update to drop it", name)
			}
			for name, got := range computed {
				if d := cmp.Diff(s.Golden(name), got); d != "" {
					t.Errorf("%s (-golden +computed; -update rewrites it):\n%s", name, d)
				}
			}
		})
	}
}
