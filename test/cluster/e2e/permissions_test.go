// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden of permissions")

// permissions compares what the API server lets the agent's account do with a
// golden, in which everybody's own rights are too.
func (c *cluster) permissions(t *testing.T) {
	const golden = "testdata/can-i.golden.txt"
	lines := strings.Split(c.kubectl(t, "auth", "can-i", "--list", "--as=system:serviceaccount:"+release+":"+release), "\n")
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	// The API server lists rules in no order.
	slices.Sort(lines[1:])
	got := strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the account's permissions changed, go test -update writes them (-want +got):\n%s", diff)
	}
}
