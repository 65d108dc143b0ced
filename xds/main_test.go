// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"flag"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "rewrite the goldens in testdata")
	flag.Parse()
	os.Exit(m.Run())
}
