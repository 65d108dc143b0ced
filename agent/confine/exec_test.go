// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// They say what the test binary is to be: the launcher, or the program that
// the launcher starts. Their value is the directory of the test.
const (
	launchVar   = "NODEVOY_TEST_LAUNCH"
	confinedVar = "NODEVOY_TEST_CONFINED"
)

// The files that the program is given: its own network namespace, and its mount
// namespace.
const (
	netFD   = 3
	mountFD = 4
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(confinedVar); dir != "" {
		if err := confined(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(launchVar); dir != "" {
		err := testConfig(dir).Exec(os.Stderr, os.Args[:1], append(os.Environ(), confinedVar+"="+dir))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// testConfig is that of pod mode for root, which may give it, and nothing at all
// for other users.
func testConfig(dir string) Config {
	c := Config{User: os.Geteuid(), RunDir: filepath.Join(dir, "run"), NetnsDirs: []string{filepath.Join(dir, "netns")}}
	if os.Geteuid() == 0 {
		c.User, c.Capabilities = 65532, 1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_NET_ADMIN
	}
	return c
}

// TestConfined runs this binary confined, which tries what it may do, and what not.
func TestConfined(t *testing.T) {
	// Other users can't enter t.TempDir.
	dir, err := os.MkdirTemp("/tmp", "confine-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	for path, mode := range map[string]os.FileMode{dir: 0o755, filepath.Join(dir, "run"): 0o777, filepath.Join(dir, "netns"): 0o755, filepath.Join(dir, "other"): 0o777} {
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"run/config", "netns/pod", "other/file"} {
		if err := errors.Join(os.WriteFile(filepath.Join(dir, name), nil, 0o600), os.Chmod(filepath.Join(dir, name), 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(program, text, 0o600), os.Chmod(program, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), launchVar+"="+dir)
	for _, kind := range []string{"net", "mnt"} {
		file, err := os.Open("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "tried everything") {
		t.Errorf("the program did not come to its end: %q", out)
	}
}

// confined is what the program tries. It returns everything that is not as it
// should be.
func confined(dir string) error {
	// Some of the calls would change the machine if nothing denied them.
	if mode, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_SECCOMP, 0, 0); errno != 0 || mode != unix.SECCOMP_MODE_FILTER {
		return fmt.Errorf("seccomp mode %d (%w), want a filter", mode, errno)
	}
	err := errors.Join(tryCalls(), tryNamespaces(), tryFiles(dir), tryWork())
	if err == nil {
		_, err = io.WriteString(os.Stdout, "tried everything\n")
	}
	return err
}

// want is an error unless a call ended as it should.
func want(what string, got, wanted error) error {
	if !errors.Is(got, wanted) {
		return fmt.Errorf("%s: %w, want %w", what, got, wanted)
	}
	return nil
}

// tryCalls makes every forbidden call, with arguments that do no harm.
func tryCalls() error {
	var errs []error
	for name, number := range forbidden() {
		_, _, errno := unix.RawSyscall6(uintptr(number), 0, 0, 0, 0, 0, 0)
		errs = append(errs, want(name, errno, unix.EPERM))
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	errs = append(errs, want("clone a user namespace", errno, unix.EPERM))
	_, _, errno = unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	errs = append(errs, want("clone3", errno, unix.ENOSYS))
	_, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	errs = append(errs, want("netlink", err, unix.EPERM))
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
	return errors.Join(append(errs, want("raw socket", err, unix.EPERM))...)
}

// tryNamespaces enters its own network namespace, which needs SYS_ADMIN, if it has
// that, and nothing else.
func tryNamespaces() error {
	runtime.LockOSThread()
	var entered error
	if capable, err := effective(); err != nil {
		return err
	} else if !capable.has(unix.CAP_SYS_ADMIN) {
		entered = unix.EPERM
	}
	return errors.Join(
		want("enter a network namespace", unix.Setns(netFD, unix.CLONE_NEWNET), entered),
		want("enter it by no type", unix.Setns(netFD, 0), unix.EPERM),
		want("enter a mount namespace", unix.Setns(mountFD, unix.CLONE_NEWNS), unix.EPERM),
		want("enter it by no type", unix.Setns(mountFD, 0), unix.EPERM),
	)
}

// effective are the capabilities of this thread.
func effective() (Capabilities, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return Capabilities(data[0].Effective) | Capabilities(data[1].Effective)<<32, err
}

// tryFiles looks at what Landlock leaves.
func tryFiles(dir string) error {
	var errs []error
	for name, wanted := range map[string]error{"run/config": nil, "netns/pod": nil, "other/file": unix.EACCES} {
		_, err := os.ReadFile(filepath.Join(dir, name))
		errs = append(errs, want("read "+name, err, wanted))
		err = os.WriteFile(filepath.Join(dir, name), nil, 0)
		errs = append(errs, want("write "+name, err, unix.EACCES))
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "run", "socket"))
	errs = append(errs, want("make a socket", err, nil))
	if err == nil {
		errs = append(errs, want("remove it", listener.Close(), nil))
	}
	_, err = net.Listen("unix", filepath.Join(dir, "other", "socket"))
	errs = append(errs, want("make a socket elsewhere", err, unix.EACCES))
	err = unix.Exec("/bin/sh", []string{"sh"}, nil)
	return errors.Join(append(errs, want("become another program", err, unix.EACCES))...)
}

// tryWork does what any server does, on many threads.
func tryWork() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	errs := make([]error, 20)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			runtime.LockOSThread()
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				errs[i] = err
				return
			}
			_, err = conn.Write([]byte("ok"))
			errs[i] = errors.Join(err, conn.Close())
		})
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		if text, err := io.ReadAll(conn); string(text) != "ok" {
			return fmt.Errorf("read %q: %w", text, err)
		}
	}
	all.Wait()
	return errors.Join(errs...)
}
