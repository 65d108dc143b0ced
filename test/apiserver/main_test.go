// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"os"
	"testing"

	"github.com/nodevoy/nodevoy/test/contain"
	"github.com/nodevoy/nodevoy/test/kubetest"
	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/sourcetest"
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

// newLab is a lab with an API server on a node of its own.
func newLab(t testing.TB) (*lab.Lab, *Server) {
	t.Helper()
	l, err := lab.New(lab.Options{Mode: lab.Host})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	control, err := l.AddNode("control")
	if err != nil {
		t.Fatal(err)
	}
	return l, Start(t, control)
}

// TestContract holds the agent's source of inputs to its contract, on a real
// API server.
func TestContract(t *testing.T) {
	_, server := newLab(t)
	harness := kubetest.Harness{Client: server.Client(t), Config: server.Config()}
	sourcetest.Run(t, func(*testing.T) sourcetest.Harness { return harness })
}
