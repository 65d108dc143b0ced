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
	place
	pid     int
	started uint64
}

// processes looks for namespaces that processes are in, and takes the path of the
// oldest process of each: a pod's own lives longest, and what else enters the
// pod's namespace came later.
func (l *look) processes(proc string) {
	// The calling process might not be in the host's namespace; the first is.
	first, err := stat(filepath.Join(proc, "1/ns/net"))
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	l.seen[first.id] = true
	l.places = slices.DeleteFunc(l.places, func(p place) bool { return p.id == first.id })
	names, err := readNames(proc)
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("list processes: %w", err))
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
			l.errs = append(l.errs, err)
			continue
		}
		if l.seen[p.id] {
			continue
		}
		started, err := startTime(filepath.Join(proc, name, "stat"))
		if err != nil {
			// It ended in between.
			continue
		}
		if o, ok := found[p.id]; !ok || started < o.started || (started == o.started && pid < o.pid) {
			found[p.id] = process{p, pid, started}
		}
	}
	var places []place
	for _, o := range found {
		l.seen[o.id] = true
		places = append(places, o.place)
	}
	slices.SortFunc(places, func(a, b place) int { return strings.Compare(a.path, b.path) })
	l.places = append(l.places, places...)
}

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
