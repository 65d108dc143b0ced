// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrServed says that somebody else answers on the socket: another agent.
var ErrServed = errors.New("another agent serves this socket")

// socket is a listener whose file has been given its final name.
type socket struct {
	net.Listener
	path string
	made os.FileInfo
}

// listenUnix listens on a unix socket for the owner only. A socket that nobody
// answers on, left by a process that was killed, is replaced. One that
// somebody answers on is an error that wraps ErrServed, and anything else of
// that name an error, too: neither is touched.
//
// The socket is made under another name, in a directory that only the owner
// can enter, and renamed: it is never there with other permissions, and who
// connects to the name finds either the old one or the new.
func listenUnix(path string) (*socket, error) {
	if err := checkStale(path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".xds-*")
	if err != nil {
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	l, made, err := makeSocket(filepath.Join(dir, "s"), path)
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	return &socket{Listener: l, path: path, made: made}, nil
}

// makeSocket listens at temporary, and renames the socket to path.
func makeSocket(temporary, path string) (net.Listener, os.FileInfo, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(temporary, 0o600); err != nil {
		return l, nil, err
	}
	made, err := os.Lstat(temporary)
	if err != nil {
		return l, nil, err
	}
	return l, made, os.Rename(temporary, path)
}

// checkStale returns nil if there is nothing at path that must stay.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at socket %s: %w", path, err)
	case info.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("socket %s: there is something else of that name (%s)", path, info.Mode().Type())
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("socket %s: %w", path, ErrServed), conn.Close())
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return nil
	default:
		return fmt.Errorf("try socket %s: %w", path, err)
	}
}

// remove takes the socket's file away, unless it is another's by now.
func (s *socket) remove() error {
	now, err := os.Lstat(s.path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(now, s.made) {
		return nil
	}
	if err == nil {
		err = os.Remove(s.path)
	}
	if err != nil {
		return fmt.Errorf("remove socket %s: %w", s.path, err)
	}
	return nil
}
