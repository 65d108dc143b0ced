// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/xds/server"
)

// publish publishes again, for these pods, and waits until Envoy has answered.
func (r *fixture) publish(services []service, pods ...*pod) server.Status {
	r.t.Helper()
	r.pods = pods
	r.server.Publish(nodeOf(r.t, services...), targets(pods...))
	var st server.Status
	eventually(r.t, 5*time.Second, func() error {
		if st = r.server.Status(); !st.Settled || !st.ListenersAcked {
			return fmt.Errorf("not settled: %+v", st)
		}
		return nil
	})
	return st
}

// serves wants a pod's listeners of all classes to serve.
func (p *pod) serves() {
	p.t.Helper()
	for name, way := range p.ways(false) {
		if got, err := way.ask(); err != nil || got != p.v4 {
			p.t.Errorf("%s from %s: %q, %v; want %s", name, p.target.Pod, got, err, p.v4)
		}
		way.end()
	}
	p.ok(p.probe())
}

// TestPodWithoutNamespace: a pod whose network namespace has no path any more,
// or one that leads to something else, costs Envoy nothing but that pod's calls:
// those fail at once, a listener to be added is refused, and one to be removed
// goes.
func TestPodWithoutNamespace(t *testing.T) {
	sourceServers(t)
	services := sourceServices()
	for what, spoil := range map[string]func(*pod) error{
		"no file":      func(p *pod) error { return run("ip netns del " + p.target.Pod) },
		"another file": func(p *pod) error { return run("umount -l " + p.target.Netns) },
	} {
		t.Run(what, func(t *testing.T) {
			a, b := newPod(t, "pod-a", 2), newPod(t, "pod-b", 3)
			t.Cleanup(func() { _ = os.Remove(b.target.Netns) }) // It may be gone.
			r := newFixtureWith(t, nodeOf(t, services...), setup{pods: []*pod{a, b}})
			open := b.dial("10.96.2.10:5000")
			b.ok(speak(open, b.v4))
			b.ok(spoil(b))

			for _, address := range []string{"10.96.1.10:80", "10.96.3.10:80"} {
				if code, body, err := b.get(address); err != nil || code != http.StatusServiceUnavailable {
					t.Errorf("HTTP to %s: %d %q, %v; want 503", address, code, body, err)
				}
			}
			for _, address := range []string{"10.96.2.10:5000", "10.96.3.11:5000"} {
				start := time.Now()
				if got, err := b.say(address, "x"); got != "" || time.Since(start) > time.Second {
					t.Errorf("TCP to %s: %q, %v after %v; want the connection closed at once", address, got, err, time.Since(start))
				}
			}
			a.serves()
			b.ok(speak(open, b.v4)) // What is connected already needs no path.

			other := &pod{t: t, target: b.target}
			other.target.Pod, other.target.UID = "late", "uid-late"
			other.target.Netns += "-late"
			if what == "another file" {
				b.ok(os.WriteFile(other.target.Netns, nil, 0o600))
				t.Cleanup(func() { _ = os.Remove(other.target.Netns) })
			}
			st := r.publish(services, a, b, other)
			late := st.Refused.Pods["uid-late"]
			for _, name := range []string{"detect/shop/late/uid-late", "http/shop/late/uid-late", "tcp/shop/late/uid-late"} {
				if !strings.Contains(late, "listener "+name+": ") {
					t.Errorf("refusal of %s: %q", name, late)
				}
			}
			if len(st.Refused.Pods) != 1 || strings.Count(late, "netns") < 3 || strings.Count(late, "listener ") != 3 {
				t.Errorf("refused: %v", st.Refused)
			}
			t.Log(late)
			if st := r.publish(services, a); st.Refused.Any() {
				t.Errorf("refused: %v", st.Refused)
			}
			a.serves()
			r.alive()
		})
	}
}

// alive wants Envoy to have run all the time.
func (r *fixture) alive() {
	r.t.Helper()
	if r.stat("server.live") != 1 || r.server.Status().Streams != 1 {
		r.t.Errorf("Envoy: live %d, streams %d", r.stat("server.live"), r.server.Status().Streams)
	}
}

// speak asks a source server on a connection that is open.
func speak(c net.Conn, want string) error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, question); err != nil {
		return err
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil || string(buf[:n]) != want {
		return fmt.Errorf("the server says %q, %w; want %s", buf[:n], err, want)
	}
	return nil
}

// TestPodPortTaken: a port that a pod itself has taken costs it that listener;
// it is named, all others serve, and it is there soon after the port is free.
func TestPodPortTaken(t *testing.T) {
	sourceServers(t)
	services := sourceServices()
	a, b := newPod(t, "pod-a", 2), newPod(t, "pod-b", 3)
	for name, address := range map[string]string{"IPv4": "127.0.0.1:23721", "IPv6": "[::1]:23721", "every address": ":23721"} {
		t.Run(name, func(t *testing.T) {
			taken := b.listen(address)
			r := newFixtureWith(t, nodeOf(t, services...), setup{pods: []*pod{a, b}})
			st := r.server.Status()
			why := st.Refused.Pods["uid-pod-b"]
			if len(st.Refused.Pods) != 1 || !strings.HasPrefix(why, "listener tcp/shop/pod-b/uid-pod-b: ") || strings.Count(why, "listener ") != 1 || !strings.Contains(why, "Address already in use") {
				t.Errorf("refused: %v", st.Refused)
			}
			a.serves()
			if err := b.probe(); err != nil {
				t.Error(err)
			}
			if got, err := b.ways(false)["HTTP/1"].ask(); got != b.v4 {
				t.Errorf("HTTP from the pod: %q, %v", got, err)
			}
			if err := taken.Close(); err != nil || name != "IPv4" {
				b.ok(err)
				return
			}
			took := eventually(t, 20*time.Second, func() error {
				if st := r.server.Status(); st.Refused.Any() || !st.Settled {
					return fmt.Errorf("still refused: %v", st.Refused)
				}
				return nil
			})
			b.serves()
			if n := r.server.Status().NackCount; n != 1 || took < 3*time.Second {
				t.Errorf("%d refusals, accepted after %v: it was sent again too soon", n, took)
			}
		})
	}
}

// TestPodsComeAndGo: a pod that comes, goes, moves to another namespace or gets
// IPv6 later leaves the connections of the others alone, and its own open ones
// too.
func TestPodsComeAndGo(t *testing.T) {
	sourceServers(t)
	services := sourceServices()
	a, b := newPod(t, "pod-a", 2), newPod(t, "pod-b", 3)
	b.target.V6 = false
	r := newFixtureWith(t, nodeOf(t, services...), setup{pods: []*pod{}})
	if st := r.server.Status(); len(st.Kinds) == 0 || !st.ListenersAcked {
		t.Errorf("without a pod: %+v", st)
	}
	r.publish(services, a, b)
	kept, open, openB := a.ways(false), a.dial("10.96.2.10:5000"), b.dial("10.96.2.10:5000")
	b.ok(speak(openB, b.v4))
	load := startLoadFrom(t, a, "10.96.1.10:80", "10.96.3.10:80")
	same := func(when string) {
		t.Helper()
		for name, way := range kept {
			if got, err := way.ask(); err != nil || got != a.v4 {
				t.Errorf("%s: %s from the pod that stays: %q, %v", when, name, got, err)
			}
		}
		for c, own := range map[net.Conn]string{open: a.v4, openB: b.v4} {
			if err := speak(c, own); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	same("before")
	for range 3 {
		r.publish(services, a)
		if c, err := b.DialContext(t.Context(), "tcp", "127.0.0.1:23722"); err == nil {
			_ = c.Close()
			t.Error("the listener of a pod that went is still there")
		}
		same("without the other")
		r.publish(services, a, b)
		b.serves()
		same("with it again")
	}
	b.target.V6 = true
	r.publish(services, a, b)
	b.serves()
	same("with IPv6")
	// The same pod in a new sandbox, as after its first one failed.
	moved := newPod(t, "pod-c", 4)
	moved.target.Pod, moved.target.UID = b.target.Pod, b.target.UID
	r.publish(services, a, moved)
	moved.serves()
	same("moved")
	load.stop(t)
	if st := r.server.Status(); st.NackCount != 0 {
		t.Errorf("refused: %+v", st.Nacks)
	}
	r.alive()
}

// TestPodsOutliveAgentAndEnvoy: an agent that comes back changes nothing for
// the pods, and an Envoy that does listens in all of them again.
func TestPodsOutliveAgentAndEnvoy(t *testing.T) {
	sourceServers(t)
	node := nodeOf(t, sourceServices()...)
	a, b := newPod(t, "pod-a", 2), newPod(t, "pod-b", 3)
	r := newFixtureWith(t, node, setup{pods: []*pod{a, b}})
	open := b.dial("10.96.2.10:5000")
	b.ok(speak(open, b.v4))
	b.serves() // Envoy knows the clusters from here on.
	r.stop()
	b.serves()
	r.serve(node)
	eventually(t, 10*time.Second, func() error {
		if st := r.server.Status(); !st.Settled || !st.ListenersAcked {
			return fmt.Errorf("not settled: %+v", st)
		}
		return nil
	})
	b.ok(speak(open, b.v4))
	if n := r.stat("listener_manager.listener_added"); n != 7 {
		t.Errorf("%d listeners were added, want 6 and that for health checks, once", n)
	}
	if n := r.stat("listener_manager.listener_modified"); n != 0 {
		t.Errorf("%d listeners were modified", n)
	}
	r.endEnvoy(r.envoy)
	r.startEnvoy()
	r.awaitReady()
	a.serves()
	b.serves()
}
