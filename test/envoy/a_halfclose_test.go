// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
)

// TestQuietHalfClose: one side of a connection may have ended for longer than conntrack
// remembers that (net.netfilter.nf_conntrack_tcp_timeout_close_wait, 60 s where
// kube-proxy doesn't raise it), and what the other one then sends still arrives. The
// other tests run meanwhile. Go runs files by name: this one's is to be the first, as
// the pauses are nearly as long as all other tests.
func TestQuietHalfClose(t *testing.T) {
	p := newPod(t, "pod-quiet", 200)
	inPod := newQuiet(t, mode{dialer: p, pods: []*pod{p}}, "10.244.9.2:7000", "10.96.2.200:7000", "10.96.3.200:7000")
	// In host mode at ports and frontends of its own.
	ports := model.Ports{TCP: 16001, HTTP: 16002, Detect: 16003}
	for front, port := range map[string]uint16{"10.96.12.200": ports.TCP, "10.96.13.200": ports.Detect} {
		rule := fmt.Sprintf("OUTPUT -d %s -p tcp -j DNAT --to-destination %s:%d", front, listen4, port)
		if err := run("iptables -w -t nat -A " + rule); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := run("iptables -w -t nat -D " + rule); err != nil {
				t.Error(err)
			}
		})
	}
	inHost := newQuiet(t, mode{dialer: &net.Dialer{}, ports: ports}, "10.244.9.1:7000", "10.96.12.200:7000", "10.96.13.200:7000")
	var results []<-chan error
	for _, q := range []quietConnections{inPod, inHost} {
		for _, front := range q.frontends {
			for _, pause := range []time.Duration{65 * time.Second, 100 * time.Second, 150 * time.Second} {
				results = append(results, q.afterPause(front, pause, true), q.afterPause(front, pause, false))
			}
		}
	}
	t.Parallel()
	for _, result := range results {
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
}

// TestStalledHalfClose: a client that has ended its side, and takes nothing of what waits
// for it, loses the rest: the kernel asks it ever less often, until conntrack has forgotten
// the connection, here after 2 s instead of 60.
func TestStalledHalfClose(t *testing.T) {
	p := newPod(t, "pod-stalled", 201)
	p.ok(p.do(func() error {
		return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait", []byte("2"), 0)
	}))
	q := newQuiet(t, mode{dialer: p, pods: []*pod{p}}, "10.244.9.3:7000", "10.96.2.201:7000")
	stalled := q.stalled(q.frontends[0], 20*time.Second)
	t.Parallel()
	if err := <-stalled; err == nil {
		t.Error("the client gets all: README.md says that it doesn't")
	}
}

// quietConnections are by frontends of one server, in one mode.
type quietConnections struct {
	t         *testing.T
	wire      *wire
	frontends []string
}

func newQuiet(t *testing.T, in mode, backend string, frontends ...string) quietConnections {
	t.Helper()
	server := newRawServer(t, backend)
	var services []service
	for i, front := range frontends {
		services = append(services, service{fmt.Sprintf("quiet%d", i), front, []string{backend}})
	}
	return quietConnections{t, &wire{mode: in, server: server, fixture: in.fixture(t, nodeOf(t, services...))}, frontends}
}

// open makes a connection on which nothing but Envoy keeps alive: Go does by itself.
func (q quietConnections) open(front string) pair {
	q.t.Helper()
	p := q.wire.open(q.t, front, "question\n")
	p.expect(p.server, "question\n")
	if err := errors.Join(p.client.SetKeepAlive(false), p.server.SetKeepAlive(false)); err != nil {
		q.t.Fatal(err)
	}
	return p
}

// afterPause ends one direction of a new connection and, after a pause, speaks in the
// other one.
func (q quietConnections) afterPause(front string, pause time.Duration, clientFirst bool) <-chan error {
	q.t.Helper()
	p := q.open(front)
	first, last := p.client, p.server
	if !clientFirst {
		first, last = last, first
	}
	result := make(chan error, 1)
	go func() {
		if err := speakAfter(first, last, pause); err != nil {
			result <- fmt.Errorf("%s, the client ends first: %v, after %v: %w", front, clientFirst, pause, err)
			return
		}
		result <- nil
	}()
	return result
}

func speakAfter(first, last *net.TCPConn, pause time.Duration) error {
	if err := errors.Join(first.CloseWrite(), last.SetReadDeadline(time.Now().Add(3*time.Second))); err != nil {
		return err
	}
	if n, err := last.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("the end of the first side: %d bytes, %w", n, err)
	}
	<-time.After(pause)
	if _, err := io.WriteString(last, "answer\n"); err != nil {
		return err
	}
	if err := errors.Join(last.CloseWrite(), first.SetReadDeadline(time.Now().Add(5*time.Second))); err != nil {
		return err
	}
	if got, err := io.ReadAll(first); err != nil || string(got) != "answer\n" {
		return fmt.Errorf("got %q, %w", got, err)
	}
	return nil
}

// stalled half-closes a client that takes nothing of a large answer for a time, and then
// all of it.
func (q quietConnections) stalled(front string, pause time.Duration) <-chan error {
	q.t.Helper()
	p := q.open(front)
	result := make(chan error, 1)
	go func() {
		const size = 16 << 20
		err := p.client.CloseWrite()
		go func() {
			_, _ = p.server.Write(make([]byte, size)) // The client sees what is missing.
			_ = p.server.CloseWrite()
		}()
		<-time.After(pause)
		n, readErr := io.Copy(io.Discard, p.client)
		if err = errors.Join(err, readErr); err == nil && n != size {
			err = fmt.Errorf("%d bytes of %d", n, size)
		}
		result <- err
	}()
	return result
}

// TestRequestThenHalfClose: Envoy takes the end of what a client of HTTP sends for the
// end of the connection. The server gets the request, and the client no answer.
func TestRequestThenHalfClose(t *testing.T) { bothModes(t, testRequestThenHalfClose) }

func testRequestThenHalfClose(t *testing.T, in mode) {
	w := newWire(t, in)
	request := get11("/", "")
	for _, front := range w.frontends {
		p := w.open(t, front, request)
		p.expect(p.server, request)
		if err := p.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		p.ends(p.client)
		p.ends(p.server)
	}
	// Bytes get theirs.
	p := w.open(t, "10.96.2.10:80", request)
	p.expect(p.server, request)
	if err := p.client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	p.send(p.server, answer)
	p.expect(p.client, answer)
}
