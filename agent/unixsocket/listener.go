// SPDX-License-Identifier: Apache-2.0

package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// ErrServed says that another process answers on the socket.
var ErrServed = errors.New("another process serves this socket")

// checkInterval is how often Keep looks at the socket's file.
const checkInterval = time.Second

// Listener is a net.Listener whose file stays at its path: see Keep.
type Listener struct {
	path string
	// group may connect, besides the owner, unless it is 0.
	group int

	mu      sync.Mutex
	current socket
	closed  bool
}

// socket is a listening socket and its file.
type socket struct {
	net.Listener
	file os.FileInfo
}

// Listen makes a socket at path, with mode 0600. A socket there that nobody
// answers on is replaced. One that a process answers on is an error that wraps
// ErrServed, and anything else at path is an error too: neither is touched.
func Listen(path string) (*Listener, error) { return ListenFor(path, 0) }

// ListenFor is Listen for a group too, with mode 0660, unless the group is 0. This
// process has to be in the group, or may change the owner of any file.
func ListenFor(path string, group int) (*Listener, error) {
	s, err := listen(path, group)
	if err != nil {
		return nil, err
	}
	return &Listener{path: path, group: group, current: s}, nil
}

// Accept waits for the next connection. Making the socket anew does not end it.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		s := l.socket()
		conn, err := s.Accept()
		if err == nil || l.socket().Listener == s.Listener {
			return conn, err
		}
	}
}

// Addr is the address that the socket was first made under.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close ends Accept and removes the file, unless it is another's by now. It may
// be called again, which does nothing.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	return errors.Join(l.current.Close(), l.remove())
}

// remove removes the file. The caller holds the lock.
func (l *Listener) remove() error {
	own, err := l.own()
	if err == nil && own {
		err = os.Remove(l.path)
	}
	if err != nil {
		return fmt.Errorf("remove socket %s: %w", l.path, err)
	}
	return nil
}

// own says whether the file at the path is that of our socket.
func (l *Listener) own() (bool, error) {
	file, err := os.Lstat(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(file, l.current.file), err
}

func (l *Listener) socket() socket {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// Keep makes the socket anew whenever its file is gone or replaced by one that
// nobody serves, until ctx ends. Open connections go on. What can't be made is
// logged, when it is news, and tried again.
func (l *Listener) Keep(ctx context.Context, log *zap.Logger) {
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-check.C:
		}
		made, err := l.restore()
		switch {
		case err == nil:
			last = ""
		case err.Error() != last:
			last = err.Error()
			log.Error("the socket is gone and can't be made anew", zap.String("path", l.path), zap.Error(err))
		}
		if made {
			log.Warn("the socket was gone and is made anew", zap.String("path", l.path))
		}
	}
}

// restore makes the socket anew if its file is not there any more.
func (l *Listener) restore() (made bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false, nil
	}
	if own, err := l.own(); own || err != nil {
		return false, err
	}
	s, err := listen(l.path, l.group)
	if err != nil {
		return false, err
	}
	old := l.current
	l.current = s
	// Accept goes on with the new socket.
	return true, old.Close()
}

// listen makes a socket under another name, in a directory that only the owner
// can enter, and renames it: it is never there with other permissions, and a
// client finds either the old one or the new.
func listen(path string, group int) (socket, error) {
	if err := checkStale(path); err != nil {
		return socket{}, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".sock-*")
	if err != nil {
		return socket{}, fmt.Errorf("make socket %s: %w", path, err)
	}
	s, err := listenAt(filepath.Join(dir, "s"), path, group)
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		if s.Listener != nil {
			err = errors.Join(err, s.Close())
		}
		return socket{}, fmt.Errorf("make socket %s: %w", path, err)
	}
	return s, nil
}

// listenAt listens at temporary, and renames the socket to path.
func listenAt(temporary, path string, group int) (s socket, err error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return s, err
	}
	l.SetUnlinkOnClose(false)
	s.Listener = l
	if err := open(temporary, group); err != nil {
		return s, err
	}
	if s.file, err = os.Lstat(temporary); err != nil {
		return s, err
	}
	return s, os.Rename(temporary, path)
}

// open lets the owner, and the group unless it is 0, use what is at path.
func open(path string, group int) error {
	if group == 0 {
		return os.Chmod(path, 0o600)
	}
	return errors.Join(os.Chown(path, -1, group), os.Chmod(path, 0o660))
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
