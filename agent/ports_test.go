// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBindable: a listener keeps a port from an agent that looks for its own;
// the connections that it leaves behind do not.
func TestBindable(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	if err := bindable(at); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("while somebody listens: %v", err)
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	// The accepting side is the first to close, and stays for a minute.
	if err := errors.Join(accepted.Close(), conn.Close(), ln.Close()); err != nil {
		t.Fatal(err)
	}
	if err := bindable(at); err != nil {
		t.Errorf("once nobody listens: %v", err)
	}
}
