// SPDX-License-Identifier: Apache-2.0

// Package contain runs a program again in namespaces of its own, so that nothing
// it does is seen by the machine, and all of it ends with the program. A program
// (or TestMain) wraps itself in Main, as the first thing it does.
package contain

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Mark is the environment variable that every contained process has. Its value is
// different in each run of a program.
const Mark = "NODEVOY_CONTAINED"

// keptFD is the pipe by which the inside tells the outside that it is to be kept.
const keptFD = 3

// grace is how long a program may take to end by itself once interrupted.
const grace = 5 * time.Second

// Setup says how Main contains a program. Network, mounts and /run are always its
// own.
type Setup struct {
	// User makes it root of a user namespace, whoever runs it. Without it, who
	// runs it must be root.
	User bool
	// Processes gives it a process, IPC and UTS namespace: it is process 1 there,
	// with which everything that it started ends.
	Processes bool
	// Env is added to its environment.
	Env []string
	// Keep lets it outlive the program that started it, once the body has called
	// Kept. It is then ended by killing the process whose id Started was given.
	Keep bool
	// Started, if set, is called outside with the id of the process inside.
	Started func(pid int)
	// Ended, if set, is called outside at the end, unless that is kept, with
	// Mark=value. Its error is the program's.
	Ended func(mark string) error
}

// Main runs body inside and returns its exit code. It starts the program again
// with the same arguments: outside, body is not called.
func Main(setup Setup, body func() int) int {
	code, err := run(setup, body)
	if err != nil {
		fmt.Fprintln(os.Stderr, "namespaces:", err)
		return max(code, 1)
	}
	return code
}

// Inside says whether this program already runs contained.
func Inside() bool { return os.Getenv(Mark) != "" }

func run(setup Setup, body func() int) (int, error) {
	if Inside() {
		if err := furnish(setup); err != nil {
			return 1, err
		}
		return body(), nil
	}
	if os.Geteuid() != 0 && !setup.User {
		return 1, errors.New("needs root, to make them; all it does stays inside them")
	}
	mark := Mark + "=" + rand.Text()
	kept, signalKept, err := os.Pipe()
	if err != nil {
		return 1, fmt.Errorf("make a pipe: %w", err)
	}
	defer kept.Close()
	cmd := command(setup, mark, signalKept)
	if !setup.Keep {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		// The signal is tied to the thread that starts the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("make them: %w", err)
	}
	signalKept.Close()
	if setup.Started != nil {
		setup.Started(cmd.Process.Pid)
	}
	ended := make(chan struct{})
	go func() {
		// How it ended is in the process state.
		_ = cmd.Wait()
		close(ended)
	}()
	if code, ok := wait(cmd.Process, kept, interrupted, ended); ok {
		return code, nil
	}
	if setup.Ended != nil {
		err = setup.Ended(mark)
	}
	return cmd.ProcessState.ExitCode(), err
}

// command is this program, to be started in new namespaces.
func command(setup Setup, mark string, signalKept *os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(append(os.Environ(), setup.Env...), mark)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{signalKept}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		// A group of its own: Ctrl-C reaches this process only, which passes it on.
		Setpgid: true,
	}
	if setup.Processes {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	}
	if setup.User {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// wait waits until the program has ended, or until it says that it is to be kept:
// then ok is true and code is what it wants to exit with.
func wait(inside *os.Process, kept *os.File, interrupted <-chan os.Signal, ended <-chan struct{}) (code int, ok bool) {
	keeping := make(chan byte, 1)
	go func() {
		var b [1]byte
		if n, _ := kept.Read(b[:]); n == 1 {
			keeping <- b[0]
		}
	}()
	var late <-chan time.Time
	for {
		select {
		case <-ended:
			return 0, false
		case b := <-keeping:
			return int(b), true
		case <-interrupted:
			// Errors here mean that it has ended already.
			_ = inside.Signal(syscall.SIGTERM)
			late = time.After(grace)
		case <-late:
			_ = inside.Kill()
		}
	}
}
