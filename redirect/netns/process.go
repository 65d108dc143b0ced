// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is one that is in a namespace.
type process struct {
	location
	pid     int
	started uint64
}

// processes looks for namespaces that processes are in, and takes the path of the
// oldest process of each: a pod's own lives longest, and what else enters the
// pod's namespace came later.
func (s *scan) processes(proc string) {
	if s.hostless {
		return
	}
	names, err := readNames(proc)
	if err != nil {
		s.errs = append(s.errs, fmt.Errorf("list processes: %w", err))
		return
	}
	found := map[id]process{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		p, err := stat(filepath.Join(proc, name, "ns/net"))
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			s.errs = append(s.errs, err)
			continue
		}
		if s.known[p.id] {
			continue
		}
		started, err := startTime(filepath.Join(proc, name, "stat"))
		if ended(err) {
			continue
		}
		if err != nil {
			s.errs = append(s.errs, fmt.Errorf("read the age of a process: %w", err))
			continue
		}
		if o, ok := found[p.id]; !ok || started < o.started || (started == o.started && pid < o.pid) {
			found[p.id] = process{p, pid, started}
		}
	}
	var locations []location
	for _, o := range found {
		s.known[o.id] = true
		locations = append(locations, o.location)
	}
	slices.SortFunc(locations, func(a, b location) int { return strings.Compare(a.path, b.path) })
	s.locations = append(s.locations, locations...)
}

// ended says whether a file of /proc can't be read because its process ended.
func ended(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// readNames lists a directory without asking for more than the names.
func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// startTime reads when a process started, in clock ticks since boot: see
// proc_pid_stat(5). The second field may have blanks and parentheses.
func startTime(path string) (uint64, error) {
	const afterName = 22 - 3
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	_, fields, _ := bytes.Cut(text[max(0, bytes.LastIndexByte(text, ')')):], []byte(" "))
	words := strings.Fields(string(fields))
	if len(words) <= afterName {
		return 0, fmt.Errorf("%s: %w", path, unix.EINVAL)
	}
	return strconv.ParseUint(words[afterName], 10, 64)
}
