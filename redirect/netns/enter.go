// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// own is the network namespace of the thread that opens it: not the process's,
// which is its main thread's.
const own = "/proc/thread-self/ns/net"

// errUnfinished is the result of a function that neither returned nor panicked.
var errUnfinished = errors.New("function in a network namespace ended its goroutine")

// onThread runs fn on a thread that is nobody else's while it runs. fn moves the
// thread between network namespaces, and says whether it is where it was.
func onThread(fn func() (home bool, err error)) error {
	result := make(chan error, 1)
	go func() {
		err := errUnfinished
		defer func() { result <- err }()
		// A thread that couldn't go back is never unlocked: the runtime ends it with the
		// goroutine, or parks it for ever if it is the process's first.
		runtime.LockOSThread()
		home, e := fn()
		err = e
		if home {
			runtime.UnlockOSThread()
		}
	}()
	return <-result
}

// visit calls fn in the namespace that enter moves the thread to, unless it is
// there already. It is called on a thread of its own.
func visit(to nsFile, enter func() error, fn func() error) (home bool, err error) {
	from, err := openNamespace(own)
	if err != nil {
		return true, err
	}
	defer from.close()
	if from.id == to.id {
		// Nobody needs a privilege to be where they are.
		return true, fn()
	}
	if err := enter(); err != nil {
		return true, err
	}
	err = fn()
	// If there is no way back, fn was run all the same.
	return from.enter() == nil, err
}

// Scratch calls fn on a thread in a new network namespace, in which there is
// nothing but lo, and returns what fn returns. The namespace ends with the call,
// unless fn has left something in it. On its way the thread leaves the namespace
// and comes back, so that fn is called only where pods' namespaces could be
// entered too. If it can't be, the error wraps ErrNotPermitted, or is what the
// kernel said.
func Scratch(fn func() error) error {
	return onThread(func() (bool, error) {
		from, err := openNamespace(own)
		if err != nil {
			return true, err
		}
		defer from.close()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return true, refused("make a network namespace", err)
		}
		scratch, err := openNamespace(own)
		if err == nil {
			defer scratch.close()
			if err = errors.Join(from.enter(), scratch.enter()); err != nil {
				err = refused("enter a network namespace", err)
			} else {
				err = fn()
			}
		}
		return from.enter() == nil, err
	})
}

// refused says that what was tried is not permitted, if that is the reason.
func refused(tried string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s: %w: %w", tried, ErrNotPermitted, err)
	}
	return fmt.Errorf("%s: %w", tried, err)
}

// id tells a namespace from others that exist at the same time.
type id struct{ dev, inode uint64 }

// nsFile is an open file that is a network namespace.
type nsFile struct {
	id
	fd int
}

// openNamespace opens what path leads to, if it is a network namespace.
func openNamespace(path string) (nsFile, error) {
	// Asked first: opening something else may block or have an effect.
	if _, err := stat(path); err != nil {
		return nsFile{}, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nsFile{}, describe("open", path, err)
	}
	n, err := identify(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nsFile{}, fmt.Errorf("identify %s: %w", path, err)
	}
	return n, nil
}

// openFile opens the namespace at a location, unless another is there by now.
func (l location) openFile() (nsFile, error) {
	n, err := openNamespace(l.path)
	if err == nil && n.id != l.id {
		n.close()
		return nsFile{}, fmt.Errorf("%w: %s leads to another", ErrGone, l.path)
	}
	return n, err
}

// identify makes sure that an open file is a network namespace.
func identify(fd int) (nsFile, error) {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return nsFile{}, fmt.Errorf("%w: it is no network namespace", ErrGone)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nsFile{}, err
	}
	return nsFile{id{st.Dev, st.Ino}, fd}, nil
}

// enter moves the calling thread into the namespace.
func (n nsFile) enter() error { return unix.Setns(n.fd, unix.CLONE_NEWNET) }

// enterFrom is enter, with an error that names the path that led here.
func (n nsFile) enterFrom(path string) error {
	if err := n.enter(); err != nil {
		return describe("enter", path, err)
	}
	return nil
}

func (n nsFile) close() { _ = unix.Close(n.fd) }

// describe names what was tried, and what is missing if it wasn't permitted.
func describe(verb, path string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH):
		return fmt.Errorf("%w: %s %s: %w", ErrGone, verb, path, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		needs := "be root, and have capability SYS_PTRACE where it is a process's"
		if verb == "enter" {
			needs = "have capability SYS_ADMIN, and no seccomp, AppArmor or SELinux rule against it"
		}
		return fmt.Errorf("%s network namespace %s: %w: to do so, %s: %w", verb, path, ErrNotPermitted, needs, err)
	}
	return fmt.Errorf("%s network namespace %s: %w", verb, path, err)
}
