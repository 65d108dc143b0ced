// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// grace is how long a process may take to end, and a command of the lab.
const grace = 5 * time.Second

// Process is a running program in one of the lab's namespaces, with its
// output in a file.
type Process struct {
	name   string
	output string
	cmd    *exec.Cmd
	ended  chan struct{}
	err    error
}

// start runs argv in the namespace; output goes to a file of its own or, when
// that has no name, through a pipe to nowhere.
func (n *namespace) start(output string, argv ...string) (*Process, error) {
	return n.startWith(exec.Command(argv[0], argv[1:]...), output)
}

// startWith is start of a command, whose errors go with its output unless they go
// elsewhere.
func (n *namespace) startWith(cmd *exec.Cmd, output string) (*Process, error) {
	p := &Process{name: cmd.Args[0], output: output, cmd: cmd, ended: make(chan struct{})}
	if output == "" {
		cmd.Stdout = io.Discard
	} else {
		file, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open output of %s: %w", p.name, err)
		}
		defer file.Close()
		cmd.Stdout = file
	}
	if cmd.Stderr == nil {
		cmd.Stderr = cmd.Stdout
	}
	if err := n.do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", p.name, n.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// run runs argv in the namespace, with text on its standard input, and returns
// its standard output. Its error has what it wrote to standard error.
func (n *namespace) run(ctx context.Context, text string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(text)
	return n.finish(cmd)
}

// finish runs a command in the namespace to its end and returns its standard
// output. The error has what it wrote to standard error.
func (n *namespace) finish(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := n.do(cmd.Start); err != nil {
		return "", fmt.Errorf("start %s in %s: %w", cmd.Args[0], n.name, err)
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("run %s in %s: %w: %s", strings.Join(cmd.Args, " "), n.name, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// PID is the process's id inside the lab.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended, by itself or not.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Output is all that the process, and those before it with the same output
// file, have written.
func (p *Process) Output() string {
	if p.output == "" {
		return ""
	}
	text, err := os.ReadFile(p.output)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// until is Until for something that the process is to bring about: it is given
// up when the process ends, and the error has the end of its output.
func (p *Process) until(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.ended:
			cancel(fmt.Errorf("%s has ended: %w", p.name, cmp.Or(p.err, errors.New("with success"))))
		case <-ctx.Done():
		}
	}()
	if err := Until(ctx, what, check); err != nil {
		return fmt.Errorf("%w: %w; its output ends:\n%s", err, context.Cause(ctx), tail(p.Output(), 20))
	}
	return nil
}

// Kill ends the process by SIGKILL and waits until it has ended.
func (p *Process) Kill() error { return p.end(syscall.SIGKILL, killGrace) }

// killGrace is how long the kernel may take to tear down a process: one with much
// memory and thousands of sockets, on a busy machine.
const killGrace = 30 * time.Second

// Stop asks the process to end by SIGTERM and waits until it has; it is killed,
// and an error returned, when it takes longer than limit.
func (p *Process) Stop(limit time.Duration) error {
	err := p.end(syscall.SIGTERM, limit)
	if err != nil {
		return errors.Join(err, p.Kill())
	}
	return nil
}

func (p *Process) end(sig syscall.Signal, limit time.Duration) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %s to %s: %w", sig, p.name, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s did not end within %s of %s", p.name, limit, sig)
	}
}

// RSS is the process's resident memory, in bytes.
func (p *Process) RSS() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("read memory of %s: %w", p.name, err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS of %s", p.name)
}

// CPU is the processor time the process has used, user and system.
func (p *Process) CPU() (time.Duration, error) {
	// The clock of a process, all threads, as clock_getcpuclockid(3) makes its id.
	const scheduled = 2
	var used unix.Timespec
	if err := unix.ClockGettime(^int32(p.PID())<<3|scheduled, &used); err != nil {
		return 0, fmt.Errorf("read processor time of %s: %w", p.name, err)
	}
	return time.Duration(used.Nano()), nil
}

// TreeCPU is CPU and that of the programs the process has run to their end.
func (p *Process) TreeCPU() (time.Duration, error) {
	own, err := p.CPU()
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("read processor time of %s: %w", p.name, err)
	}
	// The name, in parentheses, may hold spaces. cutime and cstime are fields 16
	// and 17 of proc_pid_stat(5), in ticks of 1/100 s on every Linux.
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0, fmt.Errorf("short stat of %s", p.name)
	}
	for _, field := range fields[13:15] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse stat of %s: %w", p.name, err)
		}
		own += time.Duration(ticks) * 10 * time.Millisecond
	}
	return own, nil
}
