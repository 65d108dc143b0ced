// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Config says where network namespaces are looked for.
type Config struct {
	// Dirs have the container runtime's mounts of network namespaces, by absolute
	// path, the preferred first. One that doesn't exist is passed over.
	Dirs []string
	// Proc is a mount of the host's /proc, where namespaces are looked for that no
	// directory has: in the oldest process of each. Empty: nowhere. It needs the
	// host's PID namespace, and capability SYS_PTRACE.
	Proc string
}

// DefaultConfig has the directories of containerd, CRI-O and Docker.
func DefaultConfig() Config {
	return Config{Dirs: []string{"/run/netns", "/var/run/netns", "/var/run/docker/netns"}}
}

// Validate reports everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if len(c.Dirs) == 0 && c.Proc == "" {
		errs = append(errs, errors.New("network namespaces: neither a directory nor a /proc to look in"))
	}
	for i, dir := range c.Dirs {
		switch {
		case !filepath.IsAbs(dir):
			errs = append(errs, fmt.Errorf("directory %d of network namespaces: %q is no absolute path", i+1, dir))
		case slices.Index(c.Dirs, dir) != i:
			errs = append(errs, fmt.Errorf("directory %d of network namespaces: %q is there twice", i+1, dir))
		}
	}
	if c.Proc != "" && !filepath.IsAbs(c.Proc) {
		errs = append(errs, fmt.Errorf("/proc to look for network namespaces in: %q is no absolute path", c.Proc))
	}
	return errors.Join(errs...)
}

// Preflight is what can be seen of the places where namespaces are looked for.
type Preflight struct {
	// Dirs are those that exist, Namespaces the number of network namespaces in them.
	Dirs       []string
	Namespaces int
	// Stale are directories among them that were mounted so that mounts which the
	// runtime makes later don't show: the namespaces of new pods can't be found.
	Stale []string
	// Proc is set when processes can be looked through.
	Proc bool
}

// Preflight says what can be seen. An error names every place that can't be read,
// and none is returned for one that doesn't exist. If there is no place at all,
// it wraps os.ErrNotExist.
func (c Config) Preflight() (Preflight, error) {
	var s Preflight
	var errs []error
	for _, dir := range distinct(c.Dirs) {
		count, err := countIn(dir)
		switch {
		case err == nil:
			s.Dirs, s.Namespaces = append(s.Dirs, dir), s.Namespaces+count
		case !errors.Is(err, os.ErrNotExist):
			errs = append(errs, err)
		}
	}
	if c.Proc != "" {
		_, err := os.ReadDir(filepath.Join(c.Proc, "1", "task"))
		s.Proc = err == nil
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 && len(s.Dirs) == 0 && !s.Proc {
		errs = append(errs, fmt.Errorf("%s: %w", strings.Join(c.Dirs, ", "), os.ErrNotExist))
	}
	mounts, err := mountinfo.GetMounts(nil)
	errs = append(errs, err)
	for _, dir := range s.Dirs {
		if private(mounts, dir) {
			s.Stale = append(s.Stale, dir)
		}
	}
	return s, errors.Join(errs...)
}

// distinct leaves out directories that others before them lead to: one of the usual
// directories is often a link to another.
func distinct(dirs []string) []string {
	var seen []os.FileInfo
	return slices.DeleteFunc(slices.Clone(dirs), func(dir string) bool {
		is, err := os.Stat(dir)
		if err != nil {
			return false
		}
		again := slices.ContainsFunc(seen, func(other os.FileInfo) bool { return os.SameFile(is, other) })
		seen = append(seen, is)
		return again
	})
}

func countIn(dir string) (int, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, name := range names {
		_, err := stat(filepath.Join(dir, name.Name()))
		switch {
		case err == nil:
			n++
		case !errors.Is(err, ErrGone):
			return 0, err
		}
	}
	return n, nil
}

// private says whether a directory is a mount of its own that takes no part in what
// is mounted elsewhere.
func private(mounts []*mountinfo.Info, dir string) bool {
	result := false
	for _, m := range mounts {
		// The last one lies over the others.
		if m.Mountpoint == filepath.Clean(dir) {
			result = !strings.Contains(m.Optional, "shared:") && !strings.Contains(m.Optional, "master:")
		}
	}
	return result
}
