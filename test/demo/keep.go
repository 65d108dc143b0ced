// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nodevoy/nodevoy/test/contain"
	"github.com/nodevoy/nodevoy/test/lab"
)

// stateFile names the process that holds a demo that was left up.
func stateFile() string { return filepath.Join(os.TempDir(), "nodevoy-demo.pid") }

// identity is a process's id and start time, which together no other process has.
func identity(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The start time is field 22 of proc_pid_stat(5); the name, in parentheses,
	// may hold spaces.
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", fmt.Errorf("short stat of process %d", pid)
	}
	return fmt.Sprintf("%d %s", pid, fields[19]), nil
}

// running returns the id of the process that holds a demo; 0 when none is up.
func running() (int, error) {
	text, err := os.ReadFile(stateFile())
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		return 0, fmt.Errorf("read %s: %w", stateFile(), err)
	}
	if now, err := identity(pid); err != nil || now != string(text) {
		if err := os.Remove(stateFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		return 0, nil
	}
	return pid, nil
}

// notUp refuses to start a second demo beside one that was left up.
func notUp() error {
	if contain.Inside() {
		return nil
	}
	pid, err := running()
	if err == nil && pid != 0 {
		return fmt.Errorf("a demo is up (process %d): end it by `make demo-down`", pid)
	}
	return err
}

// leaveUp notes which process holds the demo and says how to look around.
func leaveUp(pid int) error {
	text, err := identity(pid)
	if err != nil {
		return fmt.Errorf("the demo did not stay up: %w", err)
	}
	if err := os.WriteFile(stateFile(), []byte(text), 0o600); err != nil {
		return errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
	}
	run := lab.Dir + "/node-a/run"
	fmt.Printf(`
It is left up. Look around:
  in='nsenter -at %d'
  $in ip netns exec client curl -s http://10.96.0.10/       # call as the enrolled pod
  $in ip netns exec outsider curl -s http://10.96.0.10/     # and as one that is not
  $in tail -n 5 %s/node-a/access.log
  $in tail -n 5 %s/node-a/agent.log
  $in ip netns exec node-a %s status --run-dir %s
  $in ip netns exec node-a curl -s http://127.0.0.1:23720/metrics
  $in ip netns exec client iptables-save -t nat             # its rules, in pod mode
  $in ip netns exec node-a iptables-save -t nat             # and in host mode
  $in ip netns exec client ipset list                       # the same, sets
  $in curl -s --unix-socket %s/envoy-admin.sock http://envoy/clusters
Change objects and see it follow, for instance:
  $in ls %s/objects
  $in sed -i s/enabled/disabled/ %s/objects/namespace-shop.yaml
End it by: make demo-down
`, pid, lab.Dir, lab.Dir, os.Getenv("NODEVOY_BIN"), run, run, lab.Dir, lab.Dir)
	return nil
}

// down ends a demo that was left up: with its first process everything goes.
func down() error {
	pid, err := running()
	if err != nil {
		return err
	}
	if pid == 0 {
		fmt.Println("no demo is up")
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("end process %d: %w", pid, err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(10 * time.Millisecond) {
		if again, err := running(); err != nil || again == 0 {
			fmt.Println("the demo is gone")
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d has been killed and is still there", pid)
		}
	}
}
