// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// errUnsupported says that the kernel, or the container runtime, lacks something.
var errUnsupported = errors.New("not supported here")

// Config says what the program may do.
type Config struct {
	// User is the user, and the group of the same number, that the program runs as.
	User int
	// Capabilities are all that it has. The filter allows setns with SYS_ADMIN only.
	Capabilities Capabilities
	// RunDir is where it reads its configuration and has its sockets.
	RunDir string
	// NetnsDirs are where it finds network namespaces.
	NetnsDirs []string
}

// Validate returns an error that says what is wrong with the configuration.
func (c Config) Validate() error {
	if c.User <= 0 || c.User >= 1<<31-1 {
		return fmt.Errorf("user %d: want the number of a user other than root", c.User)
	}
	if !filepath.IsAbs(c.RunDir) {
		return fmt.Errorf("run directory %q: want an absolute path", c.RunDir)
	}
	return nil
}

// Exec replaces this process by the program, confined, and returns only errors. The
// first of argv is its path.
// What the kernel doesn't support is said on notes and left out; every other
// failure is an error, and the program doesn't start.
func (c Config) Exec(notes io.Writer, argv, environment []string) error {
	if err := c.Validate(); err != nil {
		return err
	}
	path := argv[0]
	// Threads differ from here on. execve keeps this one.
	runtime.LockOSThread()
	steps := []struct {
		name string
		do   func() error
	}{
		{"room for files", reserveFiles},
		{"no_new_privs", func() error { return call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1) }},
		{"Landlock", func() error { return c.landlock(path) }},
		{"user", func() error { return become(c.User) }},
		{"capabilities", func() error { return keep(c.Capabilities) }},
		// The last, as it denies what the other steps do.
		{"seccomp filter", func() error { return filter(c.Capabilities.has(unix.CAP_SYS_ADMIN)) }},
	}
	for _, step := range steps {
		err := step.do()
		if errors.Is(err, errUnsupported) {
			fmt.Fprintf(notes, "nodevoy-launch: without %s: %v\n", step.name, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return fmt.Errorf("start %s: %w", path, unix.Exec(path, argv, environment))
}

// manyFiles is how many files the program can open before the kernel makes its table
// of them larger.
const manyFiles = 1 << 14

// reserveFiles makes the table large now, which the program inherits. Of a program with
// several threads, each doubling from 64 on waits until no thread reads the old table,
// and others that open a file wait too: Envoy's workers, for tens of milliseconds.
func reserveFiles() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of files: %w", err)
	}
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a file: %w", err)
	}
	last, err := unix.FcntlInt(uintptr(null), unix.F_DUPFD_CLOEXEC, int(min(limit.Cur, manyFiles))-1)
	if err != nil {
		return fmt.Errorf("open a file with a high number: %w", errors.Join(err, unix.Close(null)))
	}
	return errors.Join(unix.Close(last), unix.Close(null))
}

// landlock confines the program's files. With SYS_PTRACE, it opens the network
// namespaces of other processes in /proc, which Landlock denies whatever its rules.
func (c Config) landlock(program string) error {
	if c.Capabilities.has(unix.CAP_SYS_PTRACE) {
		return fmt.Errorf("%w: it denies namespaces of other processes, which SYS_PTRACE is for", errUnsupported)
	}
	return landlock(c.grants(program))
}
