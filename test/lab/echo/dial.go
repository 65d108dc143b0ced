// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The ports that clients bind their connections to when a spec has OwnPorts:
// below node ports and below those that kernels choose by themselves.
const (
	ownFirst = 10_000
	ownCount = 20_000
)

// bindTries is how many ports are tried for one connection: others of the pod
// may have connections from the first ones.
const bindTries = 100

// connect makes a TCP connection to an IP:port, where and as the spec says.
func (s Spec) connect(ctx context.Context, target string) (net.Conn, error) {
	if s.In == nil {
		return s.connectHere(ctx, target)
	}
	var c net.Conn
	err := s.In(func() error {
		var err error
		c, err = s.connectHere(ctx, target)
		return err
	})
	return c, err
}

func (s Spec) connectHere(ctx context.Context, target string) (c net.Conn, err error) {
	if s.ports == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", target)
	}
	for range bindTries {
		d := net.Dialer{
			LocalAddr: &net.TCPAddr{Port: ownFirst + int(s.ports.Add(1)%ownCount)},
			// Else a port rests for a minute after each connection.
			Control: func(_, _ string, raw syscall.RawConn) error {
				var failed error
				err := raw.Control(func(fd uintptr) {
					failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
				})
				return errors.Join(err, failed)
			},
		}
		c, err = d.DialContext(ctx, "tcp", target)
		if !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return c, err
		}
	}
	return nil, fmt.Errorf("no port to connect from after %d tries: %w", bindTries, err)
}

// relayed says whether the server saw a port that the client hasn't bound to.
// It is never so without OwnPorts.
func (s Spec) relayed(peer string) bool {
	if s.ports == nil || peer == "" {
		return false
	}
	_, text, err := net.SplitHostPort(peer)
	if err != nil {
		return false
	}
	port, err := strconv.Atoi(text)
	return err == nil && (port < ownFirst || port >= ownFirst+ownCount)
}
