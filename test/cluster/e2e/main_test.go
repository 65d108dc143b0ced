// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

// root is the repository, seen from here.
const root = "../../.."

// interruptedCode is what a shell would make of SIGINT.
const interruptedCode = 130

func TestMain(m *testing.M) {
	code, err := runAndClean(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// runAndClean runs the tests and takes down whatever cluster they leave, also when
// they are interrupted, or killed: what does it is another process, which waits
// for this one's end.
func runAndClean(run func() int) (int, error) {
	if err := ready(); err != nil {
		return 1, err
	}
	cleaner := exec.Command("bash", "-c", "cat; exec test/cluster/down.sh")
	cleaner.Dir, cleaner.Stderr = root, os.Stderr
	// A session of its own: what interrupts the tests doesn't interrupt it.
	cleaner.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	alive, err := cleaner.StdinPipe()
	if err != nil {
		return 1, fmt.Errorf("make a pipe: %w", err)
	}
	if err := cleaner.Start(); err != nil {
		return 1, fmt.Errorf("start what takes the cluster down: %w", err)
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan int, 1)
	go func() { done <- run() }()
	code := interruptedCode
	select {
	case code = <-done:
	case s := <-interrupted:
		fmt.Fprintln(os.Stderr, "e2e:", s, "- taking the cluster down")
	}
	return code, unalive(alive, cleaner)
}

// unalive lets the cleaner do its work and waits for its end.
func unalive(alive io.Closer, cleaner *exec.Cmd) error {
	if err := errors.Join(alive.Close(), cleaner.Wait()); err != nil {
		return fmt.Errorf("take the cluster down: %w", err)
	}
	return nil
}

// ready says what the tests lack: they never skip.
func ready() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root, for namespaces and control groups")
	}
	if _, err := os.Stat(filepath.Join(root, ".cache/cluster/run")); err == nil {
		return errors.New("a cluster is up, or what is left of it, and may be in use: make cluster-down")
	}
	var missing []error
	for _, name := range []string{
		"bin/kubectl", "bin/helm", "bin/kubelet", "bin/kube-proxy", "bin/kube-apiserver", "bin/containerd",
		"images/nodevoy.tar", "images/envoy.tar", "images/echo.tar", "images/coredns.tar", "images/pause.tar",
	} {
		if _, err := os.Stat(filepath.Join(root, ".cache/cluster", name)); err != nil {
			missing = append(missing, err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "bin/kubectl-nodevoy")); err != nil {
		missing = append(missing, err)
	}
	if len(missing) > 0 {
		return fmt.Errorf("the cluster is not built, run `make cluster-images`: %w", errors.Join(missing...))
	}
	return nil
}
