// SPDX-License-Identifier: Apache-2.0

// Package e2e proves what nodevoy promises with everything real: agent, Envoy,
// kernel and pods, in a lab of network namespaces (test/lab). It needs
// root, and the two binaries that the Makefile builds and fetches.
package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/nodevoy/nodevoy/test/contain"
	"github.com/nodevoy/nodevoy/test/lab"
)

func TestMain(m *testing.M) {
	os.Exit(lab.Main(contain.Setup{}, func() int {
		if err := lab.Installed(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}))
}
