// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// countInstructions has every Envoy that is started from here on run in valgrind,
// which slows it by a factor of about 50. The returned function removes its files.
func countInstructions() (remove func() error, err error) {
	valgrind, err := exec.LookPath("valgrind")
	if err != nil {
		return nil, fmt.Errorf("count instructions: %w: install the package valgrind", err)
	}
	dir, err := os.MkdirTemp("", "nodevoy-bench-")
	if err != nil {
		return nil, fmt.Errorf("count instructions: %w", err)
	}
	remove = func() error { return os.RemoveAll(dir) }
	script := filepath.Join(dir, "envoy")
	err = os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nexec %s --quiet --tool=callgrind --callgrind-out-file=%s/%%p %s \"$@\"\n",
		valgrind, dir, os.Getenv(lab.EnvoyEnv)), 0o700)
	return remove, errors.Join(err, os.Setenv(lab.EnvoyEnv, script))
}

// countInstructions runs a spec once, and counts the instructions of the path's
// Envoy meanwhile.
func (p *path) countInstructions(ctx context.Context, spec echo.Spec) (s sample, err error) {
	if p.envoy == nil {
		s.result, err = p.from.Call(ctx, spec)
		return s, err
	}
	if _, err := p.callgrind(ctx, "--zero"); err != nil {
		return s, err
	}
	if s.result, err = p.from.Call(ctx, spec); err != nil {
		return s, err
	}
	out, err := p.callgrind(ctx, "--dump")
	if err != nil {
		return s, err
	}
	if s.instructions, err = newestTotal(filepath.Dir(os.Getenv(lab.EnvoyEnv)), p.envoy.PID()); err != nil {
		return s, fmt.Errorf("%w: %s", err, out)
	}
	return s, p.check(s.result)
}

// callgrind has the path's Envoy do what the option of callgrind_control says.
func (p *path) callgrind(ctx context.Context, option string) (string, error) {
	out, err := exec.CommandContext(ctx, "callgrind_control", option, strconv.Itoa(p.envoy.PID())).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("callgrind_control %s: %w: %s", option, err, out)
	}
	return string(out), nil
}

// newestTotal is the number of instructions in a process's newest profile in dir.
// Callgrind numbers a process's profiles from 1.
func newestTotal(dir string, pid int) (uint64, error) {
	name := filepath.Join(dir, strconv.Itoa(pid))
	profiles, err := filepath.Glob(name + ".*")
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("%s.%d", name, len(profiles)))
	if err != nil {
		return 0, fmt.Errorf("read instructions of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		if total, ok := strings.CutPrefix(line, "totals: "); ok {
			return strconv.ParseUint(strings.TrimSpace(total), 10, 64)
		}
	}
	return 0, fmt.Errorf("read instructions of process %d: no total", pid)
}
