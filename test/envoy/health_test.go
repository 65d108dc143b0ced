// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/agent/healthcheck"
)

// health asks Envoy as kubelet's liveness probe does.
func (r *fixture) health() error {
	ctx, cancel := context.WithTimeout(r.t.Context(), 4*time.Second)
	defer cancel()
	return healthcheck.Check(ctx, r.dir, healthcheck.Envoy)
}

// TestHealth: only an Envoy that serves nobody fails its liveness probe.
func TestHealth(t *testing.T) {
	r := newFixture(t, nodeOf(t))
	healthy := func(when string) {
		t.Helper()
		if err := r.health(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	healthy("at first")
	r.post("/healthcheck/fail")
	eventually(t, 5*time.Second, func() error {
		if n := r.stat("server.state"); n != 1 {
			return fmt.Errorf("state %d: Envoy does not drain", n)
		}
		return nil
	})
	healthy("while it drains")
	r.stop()
	healthy("without the agent")

	if err := r.envoy.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// The signal is on its way to each thread when the call returns.
	eventually(t, 5*time.Second, r.stopped)
	if err := r.health(); err == nil || !strings.Contains(err.Error(), "no answer from ") {
		t.Errorf("while it is stopped: got error %v", err)
	}
	if err := r.envoy.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, r.health)
}

// stopped says which of Envoy's threads still runs; nil for none.
func (r *fixture) stopped() error {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.envoy.Process.Pid))
	if err != nil {
		return err
	}
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		// The state follows the name, which is in parentheses (proc_pid_stat(5)).
		if _, rest, _ := strings.Cut(string(text), ") "); !strings.HasPrefix(rest, "T") {
			return fmt.Errorf("not stopped: %s", text)
		}
	}
	return nil
}

// TestHealthBeforeTheAgent: an Envoy that never heard of an agent is healthy
// before the chart's liveness probe could fail three times.
func TestHealthBeforeTheAgent(t *testing.T) {
	for name, serve := range map[string]func(t *testing.T, socket string){
		"absent": func(*testing.T, string) {},
		"deaf": func(t *testing.T, socket string) {
			ln, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := ln.Close(); err != nil {
					t.Error(err)
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := &fixture{t: t, dir: dir, cfg: testConfig(dir)}
			serve(t, r.cfg.Socket)
			r.startEnvoy()
			took := eventually(t, 30*time.Second, r.health)
			t.Logf("healthy after %v", took.Round(time.Millisecond))
		})
	}
}

// TestHungThread: a single thread that hangs, which the health check may not
// notice, ends Envoy.
func TestHungThread(t *testing.T) {
	for _, thread := range []string{"envoy", "wrk:worker_1"} {
		t.Run(thread, func(t *testing.T) {
			dir := t.TempDir()
			r := &fixture{t: t, dir: dir, cfg: testConfig(dir), workers: 2, replace: strings.NewReplacer("kill_timeout: 20s", "kill_timeout: 1s")}
			r.serve(nodeOf(t))
			r.startEnvoy()
			r.awaitReady()
			died := make(chan error, 1)
			go func() { died <- hang(r.thread(thread)) }()
			select {
			case err := <-died:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(15 * time.Second):
				t.Error("Envoy goes on without the thread")
			}
		})
	}
}

// thread is the id of Envoy's thread of this name.
func (r *fixture) thread(name string) int {
	r.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", r.envoy.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			r.t.Fatal(err)
		}
		if strings.TrimSpace(string(text)) != name {
			continue
		}
		var id int
		if _, err := fmt.Sscanf(filepath.Base(filepath.Dir(file)), "%d", &id); err != nil {
			r.t.Fatal(err)
		}
		return id
	}
	r.t.Fatalf("Envoy has no thread %s among %q", name, files)
	return 0
}

// hang stops one thread of another process, as a debugger does, and waits for
// the process's end, which has to be an abort.
func hang(thread int) error {
	runtime.LockOSThread() // It is the thread that traces, and it ends with this function.
	if err := unix.PtraceSeize(thread); err != nil {
		return fmt.Errorf("trace thread %d: %w", thread, err)
	}
	if err := unix.PtraceInterrupt(thread); err != nil {
		return fmt.Errorf("stop thread %d: %w", thread, err)
	}
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(thread, &status, unix.WALL, nil); err != nil {
			return fmt.Errorf("wait for thread %d: %w", thread, err)
		}
		switch {
		case status.Stopped():
		case status.Signaled() && status.Signal() == unix.SIGABRT:
			return nil
		default:
			return fmt.Errorf("thread %d ended with %#x, not with an abort", thread, status)
		}
	}
}
