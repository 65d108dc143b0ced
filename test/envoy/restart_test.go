// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/server"
)

// TestServerRestarts: the agent comes and goes under load. No request fails,
// Envoy drops no cluster, and is sent nothing that it holds already.
func TestServerRestarts(t *testing.T) {
	var services []service
	var addresses []string
	for i := range 5 {
		web := webServer(t, fmt.Sprintf("10.244.0.%d:8080", i+1), "web")
		address := fmt.Sprintf("10.96.1.%d:80", i+1)
		addresses = append(addresses, address)
		services = append(services, service{fmt.Sprintf("web-%d", i), address, []string{web}})
	}
	node := nodeOf(t, services...)
	r := newFixture(t, node)
	for _, a := range addresses {
		mustGet(t, a, "web")
	}
	load := startLoad(t, addresses...)
	for range 20 {
		r.stop()
		if _, err := os.Lstat(r.cfg.Socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a stopped server leaves its socket: %v", err)
		}
		r.serve(node)
		eventually(t, 5*time.Second, func() error {
			st := r.server.Status()
			if !st.Settled || !st.ListenersAcked || st.InUse != len(addresses) {
				return fmt.Errorf("not settled: %+v", st)
			}
			return nil
		})
		for kind, n := range r.server.Status().Kinds {
			if n.Responses != 0 {
				t.Errorf("%d responses of kind %s to an Envoy that has everything", n.Responses, xds.Kind(kind))
			}
		}
	}
	load.stop(t)
	if n := r.stat("cluster_manager.cluster_removed"); n != 0 {
		t.Errorf("Envoy dropped %d clusters", n)
	}
}

// TestChangedWhileAway: what changed while no agent was there, and only that,
// is sent when one is back.
func TestChangedWhileAway(t *testing.T) {
	one, two := webServer(t, "10.244.0.1:8080", "one"), webServer(t, "10.244.0.2:8080", "two")
	r := newFixture(t, nodeOf(t,
		service{"moves", "10.96.1.1:80", []string{one}},
		service{"goes", "10.96.1.2:80", []string{one}},
		service{"stays", "10.96.1.3:80", []string{one}}))
	for i := range 3 {
		mustGet(t, fmt.Sprintf("10.96.1.%d:80", i+1), "one")
	}
	r.stop()
	mustGet(t, "10.96.1.1:80", "one") // What was used goes on without an agent.
	start := time.Now()
	if code, _, err := get("10.96.1.9:80"); err != nil || code != 503 {
		t.Errorf("a new frontend without an agent: %d, %v; want 503", code, err)
	}
	if took := time.Since(start); took > r.cfg.DiscoveryTimeout+500*time.Millisecond {
		t.Errorf("a new frontend without an agent fails after %v", took)
	}
	r.serve(nodeOf(t,
		service{"moves", "10.96.1.1:80", []string{two}},
		service{"stays", "10.96.1.3:80", []string{one}},
		service{"comes", "10.96.1.9:80", []string{two}}))
	eventually(t, 3*time.Second, func() error { return wants("10.96.1.1:80", "two") })
	mustGet(t, "10.96.1.3:80", "one")
	mustGet(t, "10.96.1.9:80", "two") // It was asked for, and nobody answered.
	eventually(t, time.Second, func() error {
		if code, _, err := get("10.96.1.2:80"); code != 503 {
			return fmt.Errorf("the Service that went: %d, %w", code, err)
		}
		return nil
	})
	if n := r.stat("cluster_manager.cluster_removed"); n != 1 {
		t.Errorf("Envoy dropped %d clusters, want 1", n)
	}
}

// TestEnvoyEnds: the end of the last stream is seen at once, also if Envoy was
// killed; the end of the server itself is not taken for it.
func TestEnvoyEnds(t *testing.T) {
	ended := make(chan time.Time, 8)
	r := newFixtureWith(t, nodeOf(t), setup{options: []server.Option{server.OnDisconnect(func() { ended <- time.Now() })}})
	start := time.Now()
	if err := r.envoy.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = r.envoy.Wait() // Killed.
	select {
	case at := <-ended:
		t.Logf("seen %v after the kill", at.Sub(start))
		if at.Sub(start) > 200*time.Millisecond {
			t.Errorf("seen only after %v", at.Sub(start))
		}
	case <-time.After(2 * time.Second):
		t.Fatal("the end of Envoy is not seen")
	}
	if st := r.server.Status(); st.Connected || st.Settled || st.ListenersAcked {
		t.Errorf("status without an Envoy: %+v", st)
	}
	r.startEnvoy()
	r.awaitReady()
	r.stop()
	select {
	case <-ended:
		t.Error("the end of the server is taken for the end of Envoy")
	default:
	}
}

// TestTwoEnvoys: while two are connected, one of them may go.
func TestTwoEnvoys(t *testing.T) {
	ended := make(chan struct{}, 8)
	r := newFixtureWith(t, nodeOf(t), setup{options: []server.Option{server.OnDisconnect(func() { ended <- struct{}{} })}})
	first := r.envoy
	r.cfg.AdminSocket, r.cfg.HealthSocket = r.path("admin2.sock"), r.path("health2.sock")
	r.startEnvoy()
	eventually(t, 10*time.Second, func() error {
		if st := r.server.Status(); st.Streams != 2 || !st.Settled || !st.ListenersAcked {
			return fmt.Errorf("want two: %+v", st)
		}
		return nil
	})
	r.endEnvoy(first)
	eventually(t, 2*time.Second, func() error {
		if st := r.server.Status(); st.Streams != 1 || !st.Settled || !st.ListenersAcked {
			return fmt.Errorf("want one: %+v", st)
		}
		return r.probe()
	})
	if len(ended) > 0 {
		t.Error("the end of one of two is taken for the end of all")
	}
}
