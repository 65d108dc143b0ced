// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"
)

func TestConfigValidate(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"default":       {cfg: DefaultConfig()},
		"only /proc":    {cfg: Config{Proc: "/host/proc"}},
		"nothing":       {Config{}, "neither a directory nor a /proc"},
		"relative":      {Config{Dirs: []string{"/run/netns", "netns"}}, `directory 2 of network namespaces: "netns" is no absolute path`},
		"empty":         {Config{Dirs: []string{""}}, `directory 1 of network namespaces: "" is no absolute path`},
		"twice":         {Config{Dirs: []string{"/a", "/a"}}, `directory 2 of network namespaces: "/a" is there twice`},
		"relative proc": {Config{Proc: "proc"}, `"proc" is no absolute path`},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.cfg.Validate()
			if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Validate() = %v, want %q", err, c.want)
			}
		})
	}
}

// clock is a time that a test moves.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

// web is a pod that is nowhere.
func web() Wanted {
	return Wanted{UID: "1", Name: "default/web", IPs: []netip.Addr{netip.MustParseAddr("203.0.113.5")}}
}

// searches counts a Finder's searches: each begins a new cache.
func searches(f *Finder, find func()) bool {
	f.cache = nil
	find()
	return f.cache != nil
}

func TestFindLooksLessOftenTheLongerAPodIsMissing(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	f := New(Config{Dirs: []string{t.TempDir()}}, c.now, zaptest.NewLogger(t))
	start, last := c.Time, c.Time
	var waits []time.Duration
	for c.Sub(start) < 20*time.Second {
		looked := searches(f, func() {
			_, missing := f.Find([]Wanted{web()})
			err := missing["1"]
			if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "203.0.113.5 of default/web can't be looked for: no namespace can be seen") {
				t.Fatalf("Find says %v", err)
			}
		})
		if looked {
			waits = append(waits, c.Sub(last))
			last = c.Time
		}
		c.Time = c.Add(100 * time.Millisecond)
	}
	ms := time.Millisecond
	want := []time.Duration{0, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms, 5000 * ms}
	if diff := cmp.Diff(want, waits); diff != "" {
		t.Errorf("looked after (-want +got):\n%s", diff)
	}
}

func TestFindLooksAtOnceForAPodThatGotAnAddress(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	f := New(Config{Dirs: []string{t.TempDir()}}, c.now, zaptest.NewLogger(t))
	bare := web()
	bare.IPs = nil
	if _, missing := f.Find([]Wanted{bare}); !strings.Contains(missing["1"].Error(), "default/web has no address yet") {
		t.Errorf("Find says %v", missing["1"])
	}
	if !searches(f, func() { f.Find([]Wanted{web()}) }) {
		t.Error("no search with the new address")
	}
	if searches(f, func() { f.Find([]Wanted{web()}) }) {
		t.Error("a search at once after one")
	}
	f.Release("1")
	if !searches(f, func() { f.Find([]Wanted{web()}) }) {
		t.Error("no search for a pod that was forgotten")
	}
}

// A Finder of an agent that runs for months knows only what is wanted now.
func TestFindForgetsPodsThatArentWanted(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	f := New(Config{Dirs: []string{t.TempDir()}}, c.now, zaptest.NewLogger(t))
	f.Find([]Wanted{web()})
	f.Find(nil)
	if len(f.pods) != 0 {
		t.Errorf("%d pods are known", len(f.pods))
	}
}

// The test's own namespace stands for the host's: it has a mount (here a link)
// in the directory, and processes.
func TestHostsOwnNamespaceIsNoPods(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/proc/self/ns/net", filepath.Join(dir, "host")); err != nil {
		t.Fatal(err)
	}
	f := New(Config{Dirs: []string{dir, dir + "/none"}}, time.Now, zaptest.NewLogger(t))
	namespaces, err := f.All()
	if err != nil || len(namespaces) != 0 {
		t.Errorf("All() = %v, %v, want none", namespaces, err)
	}
	addrs, err := here(t).Addresses()
	if err != nil {
		t.Fatal(err)
	}
	addrs = append(addrs, web().IPs...)
	found, missing := f.Find([]Wanted{{UID: "1", Name: "default/web", IPs: addrs}})
	if len(found) != 0 || !errors.Is(missing["1"], ErrNotFound) {
		t.Errorf("Find gave %v, %v", found, missing)
	}
}

func TestFindNamesWhatItCantRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := New(Config{Dirs: []string{file}, Proc: file}, time.Now, zaptest.NewLogger(t))
	_, missing := f.Find([]Wanted{web()})
	err := missing["1"]
	if !errors.Is(err, ErrUnknown) || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), " more") {
		t.Errorf("Find says %v", err)
	}
	if _, err := f.All(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("All says %v", err)
	}
}

func TestStartTime(t *testing.T) {
	// As proc_pid_stat(5) says: pid, (comm), state, and 18 fields more before it.
	const fields = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21\n"
	for name, c := range map[string]struct {
		text string
		want uint64
	}{
		"plain":     {"12 (pause)" + fields, 4711},
		"odd name":  {"12 (a) S (b 1)" + fields, 4711},
		"cut short": {"12 (pause) S 1 2", 0},
		"no name":   {"", 0},
		"no number": {"12 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 soon 20", 0},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "stat")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := startTime(path)
			if got != c.want || (err == nil) != (c.want != 0) {
				t.Errorf("startTime = %d, %v, want %d", got, err, c.want)
			}
		})
	}
}
