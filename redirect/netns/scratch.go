// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

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
		err = around(from)
		if err == nil {
			err = fn()
		}
		return from.enter() == nil, err
	})
}

// around leaves the thread's namespace for another and comes back.
func around(other nsFile) error {
	scratch, err := openNamespace(own)
	if err != nil {
		return err
	}
	defer scratch.close()
	if err := errors.Join(other.enter(), scratch.enter()); err != nil {
		return refused("enter a network namespace", err)
	}
	return nil
}

// refused says that what was tried is not permitted, if that is the reason.
func refused(tried string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s: %w: %w", tried, ErrNotPermitted, err)
	}
	return fmt.Errorf("%s: %w", tried, err)
}
