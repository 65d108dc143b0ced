// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fullVar, when set, has the test binary run as nodevoy on a full disk: it may
// write no file larger than a kilobyte.
const fullVar = "NODEVOY_TEST_FULL_DISK"

func TestMain(m *testing.M) {
	if os.Getenv(fullVar) == "" {
		os.Exit(m.Run())
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1024, Max: 1024}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitUsage)
	}
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// content is the mode and the text of every file in a directory, by name.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = fmt.Sprintf("%v %s", info.Mode(), text)
	}
	return found
}

// TestBootstrapOnFullDisk: Envoy never finds an empty or a cut configuration.
func TestBootstrapOnFullDisk(t *testing.T) {
	for name, before := range map[string]string{"no file": "", "an older file": "node: {id: old}\n"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			output := filepath.Join(dir, "envoy.yaml")
			if before != "" {
				if err := os.WriteFile(output, []byte(before), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			want := content(t, dir)
			cmd := exec.Command("/proc/self/exe", "bootstrap", "--node-name", "n", "--output", output)
			cmd.Env = append(os.Environ(), fullVar+"=1")
			said, err := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(string(said), "write "+output+": ") {
				t.Errorf("exit code %d, %v: %s", code, err, said)
			}
			if diff := cmp.Diff(want, content(t, dir)); diff != "" {
				t.Errorf("files (-before +after):\n%s", diff)
			}
		})
	}
}

// TestBootstrapOutput: the file is what would be printed. A new one may be read by
// all, an older one keeps its mode, and a symbolic link stays one.
func TestBootstrapOutput(t *testing.T) {
	var printed, errs bytes.Buffer
	if code := run(t.Context(), []string{"bootstrap", "--node-name", "n"}, &printed, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, &errs)
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path("linked"), nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("linked", path("link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"new", "old", "link"} {
		if code := run(t.Context(), []string{"bootstrap", "--node-name", "n", "--output", path(name)}, io.Discard, &errs); code != 0 {
			t.Errorf("%s: exit code %d: %s", name, code, &errs)
		}
	}
	want := map[string]string{}
	for name, mode := range map[string]fs.FileMode{"new": 0o644, "old": 0o600, "linked": 0o640, "link": fs.ModeSymlink | 0o777} {
		want[name] = fmt.Sprintf("%v %s", mode, &printed)
	}
	if diff := cmp.Diff(want, content(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// TestBootstrapToDevice writes to what can't be replaced.
func TestBootstrapToDevice(t *testing.T) {
	var errs bytes.Buffer
	if code := run(t.Context(), []string{"bootstrap", "--node-name", "n", "--output", "/dev/null"}, io.Discard, &errs); code != 0 {
		t.Errorf("exit code %d: %s", code, &errs)
	}
	if info, err := os.Stat("/dev/null"); err != nil || info.Mode().IsRegular() {
		t.Errorf("/dev/null is now %v, %v", info.Mode(), err)
	}
	errs.Reset()
	if code := run(t.Context(), []string{"bootstrap", "--node-name", "n", "--output", "/dev/full"}, io.Discard, &errs); code != exitFailed {
		t.Errorf("/dev/full: exit code %d: %s", code, &errs)
	}
}

// TestBootstrapCopiesPrograms: the copies can be run, whatever the mode of the
// originals. The test binary stands beside them.
func TestBootstrapCopiesPrograms(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	programs := []string{probeProgram, launchProgram}
	args := []string{"bootstrap", "--node-name", "n", "--output", filepath.Join(dir, "envoy.yaml"), "--programs-output", dir}
	var errs bytes.Buffer
	if code := run(t.Context(), args, io.Discard, &errs); code != exitFailed || !strings.Contains(errs.String(), filepath.Join(filepath.Dir(self), probeProgram)) {
		t.Errorf("without the program: exit code %d: %s", code, &errs)
	}
	if found := content(t, dir); len(found) > 0 {
		t.Errorf("without the program: wrote %v", found)
	}
	install(t, programs...)
	if code := run(t.Context(), args, io.Discard, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, &errs)
	}
	for _, name := range programs {
		if got, want := content(t, dir)[name], "-rwxr-xr-x the program "+name; got != want {
			t.Errorf("copied %q, want %q", got, want)
		}
	}
}

// install puts programs beside the test binary.
func install(t *testing.T, programs ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range programs {
		original := filepath.Join(filepath.Dir(self), name)
		if err := os.WriteFile(original, []byte("the program "+name), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(original); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestBootstrapSharesTheRunDirectory: Envoy's group may make its sockets there, and
// replace nothing.
func TestBootstrapSharesTheRunDirectory(t *testing.T) {
	install(t, probeProgram, launchProgram)
	// One that any user may give a directory to.
	group := os.Getegid()
	if group == 0 {
		group = 65532
	}
	for before, want := range map[fs.FileMode]fs.FileMode{0o755: 0o775, 0o777: 0o777} {
		dir := t.TempDir()
		if err := os.Chmod(dir, before); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"bootstrap", "--node-name", "n", "--programs-output", dir, "--envoy-group", strconv.Itoa(group)}, &out, &errs); code != 0 {
			t.Fatalf("exit code %d: %s", code, &errs)
		}
		if !strings.Contains(out.String(), "mode: 432") { // 0660
			t.Errorf("the sockets are not for the group:\n%s", &out)
		}
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode(); got != want|fs.ModeDir|fs.ModeSticky {
			t.Errorf("mode %v before, %v after, want %v and sticky", before, got, want)
		}
		if got := info.Sys().(*syscall.Stat_t).Gid; int(got) != group {
			t.Errorf("it is group %d's, want %d's", got, group)
		}
	}
}

// TestBootstrapSharesTheLog: Envoy's group may write to a directory for the access log
// alone, and no other is touched.
func TestBootstrapSharesTheLog(t *testing.T) {
	for name, want := range map[string]fs.FileMode{"nodevoy": 0o775 | fs.ModeSticky, "log": 0o755} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		argv := []string{"bootstrap", "--node-name", "n", "--access-log-file", filepath.Join(dir, "access.log"), "--envoy-group", strconv.Itoa(max(os.Getegid(), 1))}
		if code := run(t.Context(), argv, &out, &errs); code != 0 {
			t.Fatalf("exit code %d: %s", code, &errs)
		}
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode() &^ fs.ModeDir; got != want {
			t.Errorf("%s has mode %v, want %v", name, got, want)
		}
	}
}

// TestBootstrapFollowsFiles: Envoy accepts no more connections than it may have files
// for, by the hard limit that the command is started with.
func TestBootstrapFollowsFiles(t *testing.T) {
	for files, want := range map[uint64]uint64{
		0: 1, 1024: 256, 4096: 1548, 20_000: 9500, 524_288: 261_644, 1 << 20: 500_000, math.MaxUint64: 500_000,
	} {
		if got := maxConnections(files, 500_000); got != want {
			t.Errorf("%d connections with %d files, want %d", got, files, want)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `ulimit -n 4096 && exec "$0" "$@"`, self, "bootstrap", "--node-name", "n")
	cmd.Env = append(os.Environ(), fullVar+"=1")
	text, err := cmd.Output()
	if err != nil || !strings.Contains(string(text), `max_active_downstream_connections: "1548"`) {
		t.Errorf("bootstrap with 4096 files: %v\n%s", err, text)
	}
}
