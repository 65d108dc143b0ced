// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bytes"
	"cmp"
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
		p := process{pid: pid}
		p.location, err = stat(filepath.Join(proc, name, "ns/net"))
		if err == nil && s.known[p.id] {
			continue
		}
		if err == nil {
			if p.started, err = startTime(filepath.Join(proc, name, "stat")); err != nil {
				err = fmt.Errorf("read the age of a process: %w", err)
			}
		}
		switch o, again := found[p.id]; {
		case errors.Is(err, ErrGone), ended(err):
		case err != nil:
			s.errs = append(s.errs, err)
		case !again || cmp.Or(cmp.Compare(p.started, o.started), cmp.Compare(p.pid, o.pid)) < 0:
			found[p.id] = p
		}
	}
	before := len(s.locations)
	for _, o := range found {
		s.known[o.id] = true
		s.locations = append(s.locations, o.location)
	}
	slices.SortFunc(s.locations[before:], func(a, b location) int { return strings.Compare(a.path, b.path) })
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
