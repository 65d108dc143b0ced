// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cacheLife is how long the addresses of a namespace that isn't held are believed;
// they hardly ever change.
const cacheLife = time.Second

// location is a path that leads to a namespace.
type location struct {
	id
	path string
}

type reading struct {
	addrs []netip.Addr
	at    time.Time
}

// scan is what is found in the node's namespaces at one time.
type scan struct {
	// known has the host's own too.
	known map[id]bool
	// hostless is set if it isn't known which the host's is that processes see.
	hostless  bool
	locations []location
	// holders are the pods for which namespaces are held; the others are in readings
	// once they were read.
	holders  map[id]*pod
	readings map[location]reading
	// errs says what couldn't be looked at.
	errs []error
}

// newScan knows the host's own namespaces: the calling thread's, which may differ
// from the process's, and the one of the first process that proc has, if any: the
// calling process might not be in the host's.
func newScan(proc string) (*scan, error) {
	s := &scan{known: map[id]bool{}, readings: map[location]reading{}}
	for _, path := range []string{own, "/proc/self/ns/net"} {
		l, err := stat(path)
		if err != nil {
			// The host's might be taken for a pod's.
			return nil, fmt.Errorf("tell the host's network namespace from others: %w", err)
		}
		s.known[l.id] = true
	}
	if proc == "" {
		return s, nil
	}
	first, err := stat(filepath.Join(proc, "1/ns/net"))
	if err != nil {
		s.errs, s.hostless = append(s.errs, err), true
		return s, nil
	}
	s.known[first.id] = true
	return s, nil
}

// stat identifies the namespace that a path leads to. What is no namespace is an
// error that wraps ErrGone: a mount that is about to be made, or was just undone,
// looks like that.
func stat(path string) (location, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return location{}, describe("find", path, err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return location{}, fmt.Errorf("%w: %s is no namespace", ErrGone, path)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return location{}, describe("find", path, err)
	}
	return location{id{st.Dev, st.Ino}, path}, nil
}

// add takes what path leads to, unless it is known by another path.
func (s *scan) add(path string) {
	l, err := stat(path)
	switch {
	case errors.Is(err, ErrGone):
	case err != nil:
		s.errs = append(s.errs, err)
	case !s.known[l.id]:
		s.known[l.id] = true
		s.locations = append(s.locations, l)
	}
}

func (s *scan) directories(dirs []string) {
	for _, dir := range distinct(dirs) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			s.errs = append(s.errs, fmt.Errorf("list directory of network namespaces: %w", err))
		}
		for _, e := range entries {
			if !e.IsDir() {
				s.add(filepath.Join(dir, e.Name()))
			}
		}
	}
}

// hostMounts looks for mounts of namespaces as the host's first process sees them:
// also those that don't propagate to where this process is.
func (s *scan) hostMounts(cfg Config) {
	dirs := DefaultConfig().Dirs
	for _, dir := range cfg.Dirs {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for i := range dirs {
		dirs[i] = filepath.Join(cfg.Proc, "1/root", dirs[i])
	}
	s.directories(dirs)
}

// incomplete is nil if everything could be looked at, else one error however many
// there were: they are alike.
func (s *scan) incomplete() error {
	if len(s.errs) < 2 {
		return errors.Join(s.errs...)
	}
	return fmt.Errorf("%w (and %d more)", s.errs[0], len(s.errs)-1)
}

// read reads the addresses in each namespace; one that is gone is left out, and
// so is what is no network namespace.
func (s *scan) read(locations []location, now time.Time) {
	if len(locations) == 0 {
		return
	}
	err := onThread(func() (bool, error) {
		from, err := openNamespace(own)
		if err != nil {
			return true, err
		}
		defer from.close()
		for _, l := range locations {
			addrs, err := readAddresses(l)
			switch {
			case errors.Is(err, ErrGone):
			case err != nil:
				s.errs = append(s.errs, err)
			default:
				s.readings[l] = reading{addrs, now}
			}
		}
		here, err := stat(own)
		return (err == nil && here.id == from.id) || from.enter() == nil, nil
	})
	if err != nil {
		s.errs = append(s.errs, err)
	}
}

// readAddresses lists the addresses in a namespace, and leaves the calling thread
// in it.
func readAddresses(l location) ([]netip.Addr, error) {
	file, err := l.openFile()
	if err != nil {
		return nil, err
	}
	defer file.close()
	if err := file.enterFrom(l.path); err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	route, err := openRoute()
	if err == nil {
		defer func() { _ = route.Close() }() // It was only read.
		addrs, err = list(route)
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses of network namespace %s: %w", l.path, err)
	}
	return addrs, nil
}

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
