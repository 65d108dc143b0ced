// SPDX-License-Identifier: Apache-2.0

package unixsocket

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// fixture is a listener that is kept, and what it logs.
type fixture struct {
	path string
	*Listener
	logs *observer.ObservedLogs
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	w := &fixture{path: filepath.Join(t.TempDir(), "x.sock")}
	l, err := Listen(w.path)
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	w.Listener, w.logs = l, logs
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Keep(ctx, zap.New(core)) })
	running.Go(func() { echo(l) })
	t.Cleanup(func() {
		cancel()
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		running.Wait()
	})
	return w
}

// echo sends each connection's bytes back until the listener is closed.
func echo(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			buf := make([]byte, 1)
			for {
				if _, err := conn.Read(buf); err != nil {
					return
				}
				if _, err := conn.Write(buf); err != nil {
					return
				}
			}
		}()
	}
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	var conn net.Conn
	await(t, func() (err error) {
		conn, err = net.Dial("unix", path)
		return err
	})
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func await(t *testing.T, f func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.Now().Add(10 * time.Second)
	for err := f(); err != nil; err = f() {
		if time.Now().After(limit) {
			t.Fatal(err)
		}
		<-tick.C
	}
}

func answers(t *testing.T, conn net.Conn) {
	t.Helper()
	buf := []byte{'x'}
	_, writeErr := conn.Write(buf)
	_, readErr := conn.Read(buf)
	if err := errors.Join(writeErr, readErr, conn.SetDeadline(time.Now().Add(10*time.Second))); err != nil {
		t.Error(err)
	}
}

// dead leaves a socket at path that nobody serves.
func dead(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMadeAnew: whatever becomes of the file, there is a socket again that
// answers, for its owner only, and open connections go on.
func TestMadeAnew(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, path string){
		"removed": func(*testing.T, string) {},
		"dead":    dead,
		"a file for a while": func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"another's for a while": func(t *testing.T, path string) {
			other, err := Listen(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = other.Close() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFixture(t)
			open := dial(t, w.path)
			answers(t, open)
			if err := os.Remove(w.path); err != nil {
				t.Fatal(err)
			}
			harm(t, w.path)
			if name == "a file for a while" || name == "another's for a while" {
				await(t, func() error {
					if w.logs.FilterMessageSnippet("can't be made anew").Len() == 0 {
						return errors.New("nothing is said")
					}
					return nil
				})
				if err := os.Remove(w.path); err != nil {
					t.Fatal(err)
				}
			}
			await(t, func() error {
				if w.logs.FilterMessage("the socket was gone and is made anew").Len() != 1 {
					return errors.New("not made anew")
				}
				return nil
			})
			answers(t, dial(t, w.path))
			answers(t, open)
			if info, err := os.Lstat(w.path); err != nil || info.Mode() != os.ModeSocket|0o600 {
				t.Errorf("the socket is %v, %v", info.Mode(), err)
			}
			if n := w.logs.FilterMessageSnippet("can't be made anew").Len(); n > 1 {
				t.Errorf("the same error is logged %d times", n)
			}
		})
	}
}

// TestClose removes the file if it is still the listener's own.
func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	one, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrServed) {
		t.Errorf("a second listener: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	two, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	answering := make(chan struct{})
	go func() { defer close(answering); echo(two) }()
	answers(t, dial(t, path))
	for range 2 {
		if err := two.Close(); err != nil {
			t.Error(err)
		}
	}
	<-answering
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end the file is still there: %v", err)
	}
}
