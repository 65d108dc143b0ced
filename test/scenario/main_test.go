// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"flag"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "rewrite the goldens in testdata")
	os.Exit(m.Run())
}
