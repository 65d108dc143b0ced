// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// groupEnv names the control group to the program inside. Empty: there is none.
const groupEnv = "NODEVOY_ATTACK_CGROUP"

// groupPrefix begins the name of the control group, below which each Envoy has its
// own; the id of the process that made it ends it.
const groupPrefix = "nodevoy-attack-"

// memoryRoot is where control groups for memory are: a hierarchy of version 1 or
// that of version 2.
func memoryRoot() (string, error) {
	const root = "/sys/fs/cgroup"
	v2, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err == nil {
		if !strings.Contains(string(v2), "memory") {
			return "", errors.New("the memory controller is not there")
		}
		return root, os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0o644)
	}
	if _, err := os.Stat(filepath.Join(root, "memory", "memory.limit_in_bytes")); err != nil {
		return "", err
	}
	return filepath.Join(root, "memory"), nil
}

// makeGroup makes an empty control group, and removes those of runs that were killed.
func makeGroup() (string, error) {
	root, err := memoryRoot()
	if err != nil {
		return "", err
	}
	left, err := filepath.Glob(filepath.Join(root, groupPrefix+"*"))
	if err != nil {
		return "", err
	}
	for _, dir := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), groupPrefix))
		if err == nil && errors.Is(syscall.Kill(pid, 0), unix.ESRCH) {
			// One that has members stays: they are not ours.
			_ = removeGroup(dir)
		}
	}
	dir := filepath.Join(root, groupPrefix+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	control := filepath.Join(dir, "cgroup.subtree_control")
	if _, err := os.Stat(control); err == nil {
		return dir, os.WriteFile(control, []byte("+memory"), 0o644)
	}
	return dir, nil
}

// removeGroup removes a control group and those below it; their members have ended.
func removeGroup(dir string) error {
	below, err := filepath.Glob(filepath.Join(dir, envoyGroup+"*"))
	errs := []error{err}
	for _, path := range append(below, dir) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove control group: %w", err))
		}
	}
	return errors.Join(errs...)
}

// envoyGroup begins the name of the control group of an Envoy.
const envoyGroup = "envoy-"

// newGroup makes a control group for one Envoy, with this limit: what the kernel still
// holds for sockets of an Envoy that has ended is not the next one's.
func newGroup(bytes int64) (group, error) {
	parent := os.Getenv(groupEnv)
	if parent == "" {
		return group{}, nil
	}
	dir, err := os.MkdirTemp(parent, envoyGroup)
	if err != nil {
		return group{}, fmt.Errorf("make control group: %w", err)
	}
	g := group{dir}
	if err := g.limit(bytes); err != nil {
		return g, fmt.Errorf("limit control group: %w", err)
	}
	return g, nil
}

// group is a control group that limits Envoy's memory as a cluster's does; the zero
// value is none.
type group struct{ dir string }

func (g group) there() bool { return g.dir != "" }

// second is whether it is of version 2.
func (g group) second() bool {
	_, err := os.Stat(filepath.Join(g.dir, "memory.max"))
	return err == nil
}

// limit sets what its members may use.
func (g group) limit(bytes int64) error {
	text := []byte(strconv.FormatInt(bytes, 10))
	if g.second() {
		// As in most clusters, there is no swap.
		if err := os.WriteFile(filepath.Join(g.dir, "memory.swap.max"), []byte("0"), 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.WriteFile(filepath.Join(g.dir, "memory.max"), text, 0o644)
	}
	// The buffers of sockets are accounted in version 2 only, unless there is a
	// limit for them.
	return errors.Join(
		os.WriteFile(filepath.Join(g.dir, "memory.limit_in_bytes"), text, 0o644),
		os.WriteFile(filepath.Join(g.dir, "memory.kmem.tcp.limit_in_bytes"), text, 0o644),
	)
}

// by starts a program in the group, given its command line.
func (g group) by() []string {
	if !g.there() {
		return nil
	}
	return []string{"/bin/sh", "-c", `echo 0 >"$0/cgroup.procs" && exec "$@"`, g.dir}
}

// used is what the members have now: memory of their own, and buffers of their
// sockets.
func (g group) used() (memory, sockets int64, err error) {
	if g.second() {
		stat, err := g.stat()
		return stat["anon"] + stat["shmem"], stat["sock"], err
	}
	stat, err := g.stat()
	if err != nil {
		return 0, 0, err
	}
	sockets, err = g.number("memory.kmem.tcp.usage_in_bytes")
	return stat["rss"] + stat["shmem"], sockets, err
}

// killed is whether the kernel has killed a member.
func (g group) killed() (bool, error) {
	file := "memory.oom_control"
	if g.second() {
		file = "memory.events"
	}
	fields, err := g.fields(file)
	return fields["oom_kill"] > 0, err
}

func (g group) stat() (map[string]int64, error) { return g.fields("memory.stat") }

func (g group) number(file string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// fields reads a file of lines with a name and a number.
func (g group) fields(file string) (map[string]int64, error) {
	text, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			out[name] = n
		}
	}
	return out, nil
}
