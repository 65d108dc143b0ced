// SPDX-License-Identifier: Apache-2.0

// Package lab is a laboratory of network namespaces: nodes on a LAN, pods on
// the nodes, a stand-in for kube-proxy, Envoy and the agent, all real. It runs
// in namespaces of its own from the first step, so it never touches the
// machine's network and ends, whole, with the program that uses it.
//
// A program (or TestMain) wraps itself in Main; inside, it makes a Lab with
// New, adds nodes, pods and Services, and calls Publish.
package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// The environment of a program inside a laboratory. Every process of a
// laboratory has insideEnv, with the laboratory's id.
const (
	insideEnv    = "NODEVOY_LAB"
	netfilterEnv = "NODEVOY_LAB_BRIDGE_NETFILTER"
)

// keptFD is the pipe by which the inside tells the outside that it is to be kept.
const keptFD = 3

// grace is how long a program may take to end by itself once interrupted.
const grace = 5 * time.Second

// Setup says how Main contains a program.
type Setup struct {
	// Keep lets the laboratory outlive the program that started it, once the
	// body has called Kept. It is then ended by killing the process whose id
	// Started was given.
	Keep bool
	// Started, if set, is called outside with the id of the process that holds
	// the laboratory: kill it and everything in it is gone.
	Started func(pid int)
}

// Main runs body as process 1 of new network, mount, process and IPC
// namespaces with a private /run, and returns its exit code. It does so by
// starting the program again with the same arguments: outside, body is not
// called. Afterwards it makes sure that nothing is left on the machine.
//
// It is to be the first thing a program does: the laboratory's echo servers
// and clients are the same program too, which Main runs instead of body.
func Main(setup Setup, body func() int) int {
	if len(os.Args) > 1 && os.Args[1] == echo.Command {
		return echo.Main(os.Args[2:])
	}
	if os.Getenv(insideEnv) != "" {
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "laboratory:", err)
			return 1
		}
		return body()
	}
	code, err := contain(setup)
	if err != nil {
		fmt.Fprintln(os.Stderr, "laboratory:", err)
		return max(code, 1)
	}
	return code
}

// contain runs this program again inside new namespaces and waits for its end.
func contain(setup Setup) (int, error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("needs root, for network namespaces; all it does stays inside them")
	}
	before := look()
	id := rand.Text()
	kept, signalKept, err := os.Pipe()
	if err != nil {
		return 1, fmt.Errorf("make a pipe: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideEnv+"="+id, netfilterEnv+"="+machineBridgeNetfilter(),
		// A program built with the race detector else takes a second to end, and
		// the clients of a laboratory are many.
		"GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{signalKept}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		// A group of its own: Ctrl-C reaches this process only, which passes it on.
		Setpgid: true,
	}
	if !setup.Keep {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		// The signal is tied to the thread that starts the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("make namespaces: %w", err)
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
	if code, ok := watch(cmd.Process, kept, interrupted, ended); ok {
		return code, nil
	}
	return cmd.ProcessState.ExitCode(), look().since(before, id)
}

// watch waits until the laboratory has ended, or until it says that it is to
// be kept: then ok is true and code is what it wants to exit with.
func watch(lab *os.Process, kept *os.File, interrupted <-chan os.Signal, ended <-chan struct{}) (code int, ok bool) {
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
			_ = lab.Signal(syscall.SIGTERM)
			late = time.After(grace)
		case <-late:
			_ = lab.Kill()
		}
	}
}

// Kept tells the process outside, of a Setup with Keep, to exit with this code
// and to leave the laboratory be, then waits for its end.
func Kept(code int) {
	outside := os.NewFile(keptFD, "kept")
	// Whoever reads the program's output sees its end.
	if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
		for fd := range 3 {
			_ = unix.Dup2(int(null.Fd()), fd)
		}
	}
	if _, err := outside.Write([]byte{byte(code)}); err != nil {
		return
	}
	outside.Close()
	select {}
}

// furnish makes the new namespaces usable: private mounts, /proc, /run, lo.
func furnish() error {
	unix.CloseOnExec(keptFD)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{"/run/netns", "/run/lock"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// machineBridgeNetfilter is the machine's net.bridge.bridge-nf-call-iptables:
// "0", "1", or empty where br_netfilter isn't loaded. A new network namespace
// has the kernel's default instead.
func machineBridgeNetfilter() string {
	text, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// BridgeNetfilter says whether bridged packets pass iptables on this machine,
// as kube-proxy needs it where pods are on a bridge.
func BridgeNetfilter() bool {
	on, err := strconv.ParseBool(os.Getenv(netfilterEnv))
	return err == nil && on
}

// Inside says whether this program already runs inside a laboratory.
func Inside() bool { return os.Getenv(insideEnv) != "" }
