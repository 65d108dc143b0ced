// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestBoundToDevice: in pod mode, a socket that is bound to a network interface
// (SO_BINDTODEVICE) doesn't connect, as what it sends to the listener, on lo, leaves by
// that interface. One that is bound to an address does.
func TestBoundToDevice(t *testing.T) {
	p := newPod(t, "pod-a", 2)
	in := mode{dialer: p, pods: []*pod{p}}
	newWire(t, in)
	connect := func(from *net.Dialer) error {
		return p.do(func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			c, err := from.DialContext(ctx, "tcp", "10.96.2.10:80")
			if err != nil {
				return err
			}
			return c.Close()
		})
	}
	if err := connect(&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(p.v4)}}); err != nil {
		t.Errorf("bound to the pod's address: %v", err)
	}
	bound := &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) { set = syscall.BindToDevice(int(fd), "eth0") })
		return errors.Join(err, set)
	}}
	var timeout net.Error
	if err := connect(bound); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("bound to eth0: %v, want a timeout", err)
	}
}
