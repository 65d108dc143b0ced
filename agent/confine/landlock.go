// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights to files, as Landlock has them.
const (
	readFiles = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// firstRights are those of the first version; each of the later ones added some.
	firstRights = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1
	// scopes: no signals to other processes, and no abstract sockets of theirs,
	// of which the node's network namespace has some that trust their peers.
	scopes = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
)

// grant is what is allowed at a path and below it.
type grant struct {
	path   string
	rights uint64
}

// grants are what Envoy does with files. It names its threads by /proc, and has
// its sockets in the run directory. Its own namespaces in /proc need no grant.
func (c Config) grants(program string) []grant {
	const execute = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
	out := []grant{
		{program, execute},
		{"/proc/self/task", unix.LANDLOCK_ACCESS_FS_WRITE_FILE},
		{"/dev/null", unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE},
		{"/dev/urandom", unix.LANDLOCK_ACCESS_FS_READ_FILE},
		{c.RunDir, readFiles | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE},
	}
	// The program's loader is in one of the library directories.
	for _, dir := range []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64"} {
		out = append(out, grant{dir, readFiles | execute})
	}
	for _, dir := range []string{"/etc", "/proc", "/sys", "/usr/share"} {
		out = append(out, grant{dir, readFiles})
	}
	for _, dir := range c.NetnsDirs {
		out = append(out, grant{dir, unix.LANDLOCK_ACCESS_FS_READ_FILE})
	}
	return out
}

// landlock confines the thread to the grants. It returns errUnsupported if the
// kernel has no Landlock.
func landlock(all []grant) error {
	version, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno == unix.ENOSYS || errno == unix.EOPNOTSUPP || errno == unix.EPERM {
		// EPERM is how an older container runtime's seccomp profile says no.
		return fmt.Errorf("%w: %w", errUnsupported, errno)
	}
	if errno != 0 {
		return fmt.Errorf("find Landlock's version: %w", errno)
	}
	handled := handledBy(int(version))
	fd, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&handled)), sizeBy(int(version)), 0)
	if errno != 0 {
		return fmt.Errorf("make a Landlock ruleset: %w", errno)
	}
	defer func() { _ = unix.Close(int(fd)) }()
	for _, g := range all {
		if err := g.add(int(fd), handled.Handled_access_fs); err != nil {
			return err
		}
	}
	return call("confine by Landlock", unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0)
}

// handledBy is what a version of Landlock can deny.
func handledBy(version int) unix.LandlockRulesetAttr {
	handled := unix.LandlockRulesetAttr{Handled_access_fs: firstRights}
	for _, later := range []struct {
		version int
		right   uint64
	}{{2, unix.LANDLOCK_ACCESS_FS_REFER}, {3, unix.LANDLOCK_ACCESS_FS_TRUNCATE}, {5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV}} {
		if version >= later.version {
			handled.Handled_access_fs |= later.right
		}
	}
	if version >= 6 {
		handled.Scoped = scopes
	}
	return handled
}

// sizeBy is how much of the struct the version knows: files, TCP ports, scopes.
// An older kernel takes a larger one, too, if the rest is zero.
func sizeBy(version int) uintptr {
	if version >= 6 {
		return unsafe.Offsetof(unix.LandlockRulesetAttr{}.Quiet_access_fs)
	}
	return unsafe.Offsetof(unix.LandlockRulesetAttr{}.Handled_access_net)
}

// add adds the grant to the ruleset. A path that isn't there needs none.
func (g grant) add(ruleset int, handled uint64) error {
	fd, err := unix.Open(g.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", g.path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil {
		return fmt.Errorf("look at %s: %w", g.path, err)
	}
	rights := g.rights & handled
	if info.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	}
	// The kernel's struct is packed, which the Go one needn't be: its first 12 bytes.
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	return call("allow "+g.path, unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0)
}
