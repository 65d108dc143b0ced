// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/xds"
)

// TestStall: a connection whose server takes nothing is closed after a time, also when
// its client was reset, which Envoy doesn't notice while it reads nothing.
func TestStall(t *testing.T) {
	// What connects waits in the kernel, and what it sends.
	listener, err := net.Listen("tcp", "10.244.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	backend := []string{listener.Addr().String()}
	r := newFixtureWith(t, nodeOf(t, service{"web", "10.96.1.10:80", backend}, service{"db", "10.96.2.10:5000", backend}),
		setup{change: func(c *xds.Config) { c.StallTimeout = 2 * time.Second }})
	for address, active := range map[string]string{
		"10.96.1.10:80":   "cluster.shop/web/main.upstream_cx_active",
		"10.96.2.10:5000": "cluster.shop/db/main.upstream_cx_active",
	} {
		for _, reset := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s reset %v", address, reset), func(t *testing.T) {
				c, err := net.DialTimeout("tcp", address, 5*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Close() }()
				if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000000\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Write(make([]byte, 64<<20)); err == nil {
					t.Fatal("somebody takes all of it")
				}
				if n := r.stat(active); n != 1 {
					t.Fatalf("%d connections, want 1", n)
				}
				if reset {
					if err := c.(*net.TCPConn).SetLinger(0); err != nil {
						t.Fatal(err)
					}
					_ = c.Close()
				}
				took := eventually(t, 20*time.Second, func() error {
					if n := r.stat(active); n != 0 {
						return fmt.Errorf("%d connections are left", n)
					}
					return nil
				})
				t.Logf("closed after %v", took)
			})
		}
	}
	r.alive()
}
