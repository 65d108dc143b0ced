// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the goldens and the README's table")

const (
	chartDir = "../../charts/nodevoy"
	// kubeVersion is that of the schemas, see conform_test.go.
	kubeVersion = "1.36.3"
)

// program finds a program in the paths given, of which empty ones count as
// not set.
func program(t *testing.T, name, remedy string, paths ...string) string {
	t.Helper()
	for _, candidate := range paths {
		if candidate == "" {
			continue
		}
		path, err := filepath.Abs(candidate)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	t.Fatalf("%s is not there, looked for %q: %s", name, paths, remedy)
	return ""
}

func helmPath(t *testing.T) string {
	t.Helper()
	assets := os.Getenv("NODEVOY_ASSETS")
	if assets == "" {
		assets = "../../.cache/cluster/bin"
	}
	return program(t, "helm", "run `make chart-test`, or set HELM", os.Getenv("HELM"), filepath.Join(assets, "helm"))
}

func nodevoyPath(t *testing.T) string {
	t.Helper()
	return program(t, "nodevoy", "run `make build`, or set NODEVOY_BIN", os.Getenv("NODEVOY_BIN"), "../../bin/nodevoy")
}

// run runs a program and returns its standard output and, when it failed, its
// standard error.
func run(t *testing.T, stdin []byte, name string, args ...string) (stdout []byte, failure string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", name, err)
	}
	if err != nil {
		return out.Bytes(), errs.String() + err.Error()
	}
	return out.Bytes(), ""
}

// helm runs helm on the chart, with its caches and settings in a directory of
// the test's, and returns standard output and, when it failed, standard error.
func helm(t *testing.T, verb []string, flags ...string) (stdout []byte, failure string) {
	t.Helper()
	home := t.TempDir()
	for _, name := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		t.Setenv(name, home)
	}
	t.Setenv("KUBECONFIG", filepath.Join(home, "none"))
	return run(t, nil, helmPath(t), append(append(verb, chartDir), flags...)...)
}

// render is what the chart makes of the values, which are flags of helm's.
func render(t *testing.T, flags ...string) []byte {
	t.Helper()
	flags = append([]string{"--namespace", "nodevoy-system", "--kube-version", kubeVersion}, flags...)
	out, failure := helm(t, []string{"template", "nodevoy"}, flags...)
	if failure != "" {
		t.Fatalf("helm template %q: %s", flags, failure)
	}
	return out
}

// golden compares with a file of testdata, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test ./test/chart -update writes it)", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got), go test ./test/chart -update rewrites it:\n%s", name, diff)
	}
}

// cases are the sets of values that are rendered, by name: the file is
// testdata/NAME.values.yaml.
func cases(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no testdata/*.values.yaml")
	}
	byName := map[string]string{}
	for _, file := range files {
		byName[strings.TrimSuffix(filepath.Base(file), ".values.yaml")] = file
	}
	return byName
}
