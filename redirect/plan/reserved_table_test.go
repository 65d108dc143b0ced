// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"os"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/plan"
)

// TestReadmeListsWhatIsReserved keeps the README's table that of reserved.go.
func TestReadmeListsWhatIsReserved(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), plan.ReservedTable()) {
		t.Errorf("README.md lacks this table:\n%s", plan.ReservedTable())
	}
}
