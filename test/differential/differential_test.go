// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"bytes"
	"context"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestDirect: without a proxy, every case can be played to its end, and nothing differs
// from one play to the next.
func TestDirect(t *testing.T) {
	const lanes, cases = 16, 300
	var next atomic.Uint64
	var tasks sync.WaitGroup
	for range lanes {
		path := loopback(t)
		tasks.Go(func() {
			for seed := next.Add(1); seed <= cases; seed = next.Add(1) {
				c := Generate(seed)
				first, err := Direct(t.Context(), c, path)
				if err != nil {
					t.Errorf("%v\n%v\n%v", c, err, first)
					continue
				}
				second, err := Direct(t.Context(), c, path)
				if err != nil {
					t.Errorf("%v\n%v", c, err)
				}
				if found, _ := Compare(c, nil, first, second); len(found) > 0 {
					t.Errorf("%v\ndiffers in %v", c, found)
				}
			}
		})
	}
	tasks.Wait()
}

// loopback is a path of its own without a proxy.
func loopback(t *testing.T) Path {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return Path{Listener: l, Patience: 5 * time.Second, Dial: func(ctx context.Context) (*net.TCPConn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		return c.(*net.TCPConn), nil
	}}
}

// TestRowsExist: every rule implements a row of the table of what Envoy changes.
func TestRowsExist(t *testing.T) {
	text, err := os.ReadFile("../envoy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range Rules() {
		if !strings.Contains(string(text), "| "+r.Row) && !strings.Contains(string(text), "| **"+r.Row) {
			t.Errorf("the rule %q is about no row: %q", r.Name, r.Row)
		}
		if seen[r.Name] {
			t.Errorf("there are two rules %q", r.Name)
		}
		seen[r.Name] = true
	}
}

// TestDifferencesAreFound: what a proxy changes and no rule knows is a difference, and
// the smallest case that shows it has little else.
func TestDifferencesAreFound(t *testing.T) {
	direct := loopback(t)
	through := altering(t, direct)
	differs := func(c Case) bool {
		want, err := Direct(t.Context(), c, direct)
		if err != nil {
			return false
		}
		got, err := Run(t.Context(), c, through, func(Transcript) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		found, _ := Compare(c, Rules(), want, got)
		return len(found) > 0 && found[0].Kind == "request: fields"
	}
	c := Case{
		Class: HTTP,
		Client: []Step{
			{Op: Send, Data: "GET / HTTP/1.1\r\n"},
			{Op: Send, Data: "Host: web\r\n"},
			{Op: Send, Data: "A: b\r\n"},
			{Op: Send, Data: "X-Foo: 1\r\n"},
			{Op: Flush},
			{Op: Send, Data: "\r\n"},
			{Op: AwaitDone, N: 1},
		},
		Replies: []Reply{{When: AfterRequest, Steps: []Step{{Op: Send, Data: "HTTP/1.1 200 OK\r\n"}, {Op: Send, Data: "Date: x\r\nContent-Length: 0\r\n\r\n"}}}},
	}
	if !differs(c) {
		t.Fatal("a changed header is no difference")
	}
	small := Minimise(c, 200, differs)
	var text string
	for _, s := range small.Client {
		text += s.Data
	}
	if !strings.Contains(text, "X-Foo") || strings.Contains(text, "A: b") || len(small.Client) > 5 {
		t.Errorf("the smallest case is %v", small)
	}
}

// altering is a path whose proxy writes one header in another way.
func altering(t *testing.T, to Path) Path {
	t.Helper()
	front := loopback(t)
	go func() {
		for {
			client, err := front.Listener.AcceptTCP()
			if err != nil {
				return // The listener is closed at the end of the test.
			}
			server, err := to.Dial(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			go alter(server, client)
			go alter(client, server)
		}
	}()
	return Path{Dial: front.Dial, Listener: to.Listener, Patience: to.Patience}
}

func alter(to, from *net.TCPConn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if _, failed := to.Write(bytes.ReplaceAll(buf[:n], []byte("X-Foo: 1"), []byte("X-Foo: 2"))); err != nil || failed != nil {
			_ = to.Close() // Either end is the end of both.
			return
		}
	}
}
