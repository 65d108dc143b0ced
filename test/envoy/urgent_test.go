// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"net"
	"syscall"
	"testing"
)

// TestUrgentData: a byte that is sent as urgent arrives in its place among the others,
// by either direction. That it is urgent is lost.
func TestUrgentData(t *testing.T) { bothModes(t, testUrgentData) }

func testUrgentData(t *testing.T, in mode) {
	w := newWire(t, in)
	for _, front := range []string{"10.96.2.10:80", w.frontends[1]} {
		p := w.open(t, front, "\x00question")
		p.expect(p.server, "\x00question")
		for from, to := range map[*net.TCPConn]*net.TCPConn{p.client: p.server, p.server: p.client} {
			p.send(from, "ab")
			sendUrgent(t, from, "c")
			p.send(from, "d")
			p.expect(to, "abcd")
		}
	}
}

func sendUrgent(t *testing.T, c *net.TCPConn, text string) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = syscall.Sendto(int(fd), []byte(text), syscall.MSG_OOB, nil) }); err != nil || sent != nil {
		t.Fatal(err, sent)
	}
}
