// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/unixsocket"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

func TestSocketOpensWithTheFirstNode(t *testing.T) {
	s, stop := startServer(t)
	if _, err := os.Lstat(s.cfg.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before the first node there is a socket: %v", err)
	}
	s.Publish(xdstest.Node(), nil)
	connect(t, s)
	info, err := os.Lstat(s.cfg.Socket)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(s.cfg.Socket)); err != nil || len(entries) != 1 {
		t.Errorf("in the socket's directory there is %v, %v", entries, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(s.cfg.Socket)); err != nil || len(entries) != 0 {
		t.Errorf("after the end there is %v, %v", entries, err)
	}
}

func TestEndsWithoutANode(t *testing.T) {
	_, stop := startServer(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestStaleSocket(t *testing.T) {
	s, stop := startServer(t)
	s.Publish(xdstest.Node(), nil)
	connect(t, s)

	// Another server is not pushed aside.
	second, err := New(s.cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	second.Publish(xdstest.Node(), nil)
	if err := second.Run(t.Context()); !errors.Is(err, unixsocket.ErrServed) || !strings.Contains(err.Error(), s.cfg.Socket) {
		t.Errorf("on a socket that is served: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	// What a killed one left is replaced.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.cfg.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	third, stop := startAt(t, s.cfg)
	third.Publish(xdstest.Node(), nil)
	eventually(t, func() error {
		c, err := net.Dial("unix", s.cfg.Socket)
		if err != nil {
			return err
		}
		return c.Close()
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	// What is no socket is left alone.
	if err := os.WriteFile(s.cfg.Socket, []byte("other data"), 0o600); err != nil {
		t.Fatal(err)
	}
	fourth, err := New(s.cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	fourth.Publish(xdstest.Node(), nil)
	if err := fourth.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("instead of a file: %v", err)
	}
	if text, err := os.ReadFile(s.cfg.Socket); err != nil || string(text) != "other data" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

// TestSocketIsMadeAnew: a socket whose file is gone, or is another's dead one by
// now, is made again while the open streams go on.
func TestSocketIsMadeAnew(t *testing.T) {
	s, _ := startServer(t)
	s.Publish(xdstest.Node(), nil)
	one := connect(t, s)
	one.ready(s)
	if err := os.Remove(s.cfg.Socket); err != nil {
		t.Fatal(err)
	}
	two := connect(t, s)
	two.ready(s)
	one.silent()
	if err := os.Remove(s.cfg.Socket); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.cfg.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		c, err := net.Dial("unix", s.cfg.Socket)
		if err != nil {
			return err
		}
		return c.Close()
	})
	three := connect(t, s)
	three.ready(s)
	one.silent()
	two.silent()
}
