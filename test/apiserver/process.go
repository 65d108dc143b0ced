// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// process is a child of the test that can't outlive it.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	// done is closed when the process has ended; err is set before.
	done chan struct{}
	err  error
}

// start runs one of the asset binaries, its output in a file of dir.
func start(t testing.TB, dir, name string, args ...string) *process {
	t.Helper()
	assets := os.Getenv("NODEVOY_ASSETS")
	if assets == "" {
		t.Fatal("NODEVOY_ASSETS is not set: run the suite by `make apiserver`, which builds etcd and kube-apiserver")
	}
	return Run(t, dir, filepath.Join(assets, name), args...)
}

// Run runs a program until the test ends, its output in a file of dir. The
// kernel kills it should the test process die without its cleanups.
func Run(t testing.TB, dir, path string, args ...string) *process {
	t.Helper()
	p := &process{
		name: filepath.Base(path),
		log:  filepath.Join(dir, filepath.Base(path)+".log"),
		cmd:  exec.Command(path, args...),
		done: make(chan struct{}),
	}
	out, err := os.Create(p.log)
	if err != nil {
		t.Fatalf("create log of %s: %v", p.name, err)
	}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	started := make(chan error)
	go func() {
		defer close(p.done)
		defer out.Close()
		// The signal comes at the death of the thread that forked, so that
		// thread waits here until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	t.Cleanup(func() {
		p.Stop(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", p.name, p.tail(t))
		}
	})
	return p
}

// Stop sends a signal and waits until the process has ended.
func (p *process) Stop(signal syscall.Signal) {
	if !p.ended() {
		_ = p.cmd.Process.Signal(signal) // it may have ended meanwhile
	}
	<-p.done
}

// ended says whether the process is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// tail is the end of the process's output.
func (p *process) tail(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(text), 30)
}

// poll asks every 20 ms until the answer is yes or time is up, and says which.
func poll(timeout time.Duration, yes func() bool) bool {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if yes() {
			return true
		}
		select {
		case <-deadline.C:
			return yes()
		case <-tick.C:
		}
	}
}
