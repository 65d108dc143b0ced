// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// here opens the namespace that the test is in, which needs no privilege.
func here(t *testing.T) *Namespace {
	t.Helper()
	s, err := OpenPath("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// files counts the open files of the process.
func files(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestSpaceIsWhereItsPathLeads(t *testing.T) {
	s := here(t)
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	if s.Inode() != st.Ino || s.Path() != "/proc/self/ns/net" {
		t.Errorf("Namespace is %d at %s, want %d", s.Inode(), s.Path(), st.Ino)
	}
	if err := s.Check(nil); err != nil {
		t.Errorf("Check: %v", err)
	}
	absent := netip.MustParseAddr("203.0.113.77")
	if err := s.Check([]netip.Addr{absent}); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "203.0.113.77 is not on a link of /proc/self/ns/net") {
		t.Errorf("Check of an address that isn't there: %v", err)
	}
}

func TestDoReturnsWhatTheFunctionReturns(t *testing.T) {
	s := here(t)
	want := errors.New("own")
	err := s.Do(func() error {
		return s.Do(func() error { return want })
	})
	if !errors.Is(err, want) {
		t.Errorf("Do returned %v, want the function's error", err)
	}
}

// What calls t.Fatal in a function ends its goroutine.
func TestDoReturnsWhenTheFunctionDoesNot(t *testing.T) {
	s := here(t)
	if err := s.Do(func() error { runtime.Goexit(); return nil }); !errors.Is(err, errUnfinished) {
		t.Errorf("Do returned %v", err)
	}
}

func TestClosedSpaceIsGone(t *testing.T) {
	s := here(t)
	if _, err := s.Addresses(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	called := false
	_, addresses := s.Addresses()
	for what, err := range map[string]error{
		"Do":        s.Do(func() error { called = true; return nil }),
		"Check":     s.Check(nil),
		"Addresses": addresses,
	} {
		if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "was closed") {
			t.Errorf("%s of a closed Namespace: %v", what, err)
		}
	}
	if called {
		t.Error("the function was called")
	}
}

func TestOpenPathRefusesWhatIsNoNetworkNamespace(t *testing.T) {
	dir := t.TempDir()
	file, fifo, dangling := filepath.Join(dir, "file"), filepath.Join(dir, "fifo"), filepath.Join(dir, "dangling")
	err := errors.Join(os.WriteFile(file, nil, 0o600), unix.Mkfifo(fifo, 0o600), os.Symlink(filepath.Join(dir, "nothing"), dangling))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                       "is no namespace",
		fifo:                       "is no namespace",
		dir:                        "is no namespace",
		dangling:                   "no such file",
		filepath.Join(dir, "none"): "no such file",
		"/proc/self/ns/mnt":        "is no network namespace",
	} {
		s, err := OpenPath(path)
		if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("OpenPath(%s) = %v, %v, want an error with %q", path, s, err, want)
		}
	}
}

func TestSpaceClosesItsFiles(t *testing.T) {
	// The first socket starts the runtime's poller, which has files of its own.
	if _, err := here(t).Addresses(); err != nil {
		t.Fatal(err)
	}
	before := files(t)
	for range 20 {
		s, err := OpenPath("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Addresses(); err != nil {
			t.Fatal(err)
		}
		if err := s.Do(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		if _, err := OpenPath("/proc/self/ns/mnt"); err == nil {
			t.Fatal("a mount namespace was opened")
		}
	}
	if after := files(t); after != before {
		t.Errorf("%d files are open, were %d", after, before)
	}
}
