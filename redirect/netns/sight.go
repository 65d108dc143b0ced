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

// Sight is what can be seen of the places where namespaces are looked for.
type Sight struct {
	// Dirs are those that exist, Spaces the number of network namespaces in them.
	Dirs   []string
	Spaces int
	// Stale are directories among them that were mounted so that mounts which the
	// runtime makes later don't show: the namespaces of new pods can't be found.
	Stale []string
	// Proc is set when processes can be looked through.
	Proc bool
}

// Look says what can be seen. An error names every place that can't be read,
// and none is returned for one that doesn't exist. If there is no place at all,
// it wraps os.ErrNotExist.
func (c Config) Look() (Sight, error) {
	var s Sight
	var errs []error
	var seen []os.FileInfo
	for _, dir := range c.Dirs {
		is, err := os.Stat(dir)
		// One of the usual directories is often a link to another.
		again := err == nil && slices.ContainsFunc(seen, func(other os.FileInfo) bool { return os.SameFile(is, other) })
		if errors.Is(err, os.ErrNotExist) || again {
			continue
		}
		count, err := spacesIn(dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		seen = append(seen, is)
		s.Dirs, s.Spaces = append(s.Dirs, dir), s.Spaces+count
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
	if err != nil {
		return s, errors.Join(append(errs, err)...)
	}
	for _, dir := range s.Dirs {
		if private(mounts, dir) {
			s.Stale = append(s.Stale, dir)
		}
	}
	return s, errors.Join(errs...)
}

// spacesIn counts the network namespaces of a directory.
func spacesIn(dir string) (int, error) {
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
