// SPDX-License-Identifier: Apache-2.0

// Package programs proves that servers and clients which nobody here wrote work the
// same through nodevoy as without it. Each server runs in a pod, behind Services that
// declare its protocol and Services that don't; a pod that is enrolled and one that
// isn't run the same clients, and what they print, and how long it takes, is compared.
//
// It needs root, the Debian packages of programs.mk, and what that builds.
package programs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nodevoy/nodevoy/test/contain"
	"github.com/nodevoy/nodevoy/test/lab"
)

// dataDir has a directory for each program. It is in memory, and ends with the lab.
const dataDir = "/run/programs"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == recordCommand {
		fmt.Fprintln(os.Stderr, record(os.Args[2], os.Stdout))
		os.Exit(1)
	}
	os.Exit(lab.Main(contain.Setup{}, func() int {
		if err := errors.Join(lab.Installed(), findPrograms()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}))
}

// findPrograms makes the path complete: what the Makefile builds, servers, and
// PostgreSQL's own programs, which Debian keeps to itself.
func findPrograms() error {
	path := os.Getenv("PATH") + ":/usr/sbin:/sbin"
	for _, env := range []string{"NODEVOY_PROGRAMS", "NODEVOY_ASSETS"} {
		if os.Getenv(env) == "" {
			return fmt.Errorf("%s is not set: run this by `make program-test`", env)
		}
		path = os.Getenv(env) + ":" + path
	}
	postgres, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return err
	}
	for _, dir := range postgres {
		path = dir + ":" + path
	}
	here, err := os.Getwd()
	return errors.Join(err, os.Setenv("PATH", path), os.Setenv("TESTDATA", filepath.Join(here, "testdata")))
}
