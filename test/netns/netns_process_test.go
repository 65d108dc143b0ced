// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/netns"
)

// process starts a program that waits, in new namespaces.
func process(t *testing.T, flags uintptr) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	return cmd
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// procfs is the host's /proc with a choice of processes, and the test's own as the
// first.
type procfs struct {
	t    *testing.T
	path string
}

func newProcfs(t *testing.T) procfs {
	p := procfs{t, t.TempDir()}
	p.add("1", os.Getpid(), 0)
	// Not everything in /proc is a process, and some have ended since it was listed.
	if err := errors.Join(os.Mkdir(filepath.Join(p.path, "sys"), 0o700), os.Mkdir(filepath.Join(p.path, "4711"), 0o700)); err != nil {
		t.Fatal(err)
	}
	return p
}

// add shows a process by this number, and as started at this time; it returns the
// path of the process's namespace.
func (p procfs) add(number string, pid, started int) string {
	p.t.Helper()
	dir := filepath.Join(p.path, number)
	stat := fmt.Sprintf("%s (a b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 %d 20 21\n", number, started)
	err := errors.Join(os.Mkdir(dir, 0o700), os.Symlink(fmt.Sprintf("/proc/%d/ns", pid), filepath.Join(dir, "ns")),
		os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o600))
	if err != nil {
		p.t.Fatal(err)
	}
	return filepath.Join(dir, "ns/net")
}

func TestFinderLooksThroughProcesses(t *testing.T) {
	d := newRuntimeDir(t)
	proc := newProcfs(t)
	mounted := d.add("mounted", "10.1.0.2")
	one := process(t, unix.CLONE_NEWNET)
	path := proc.add("90", one.Process.Pid, 1000)
	d.address(path, "10.1.0.3")
	// A later process is in the namespace too; numbers go round.
	s := open(t, path)
	var second *exec.Cmd
	if err := s.Do(func() error { second = process(t, 0); return nil }); err != nil {
		t.Fatal(err)
	}
	later := proc.add("80", second.Process.Pid, 1001)
	want := []netns.Wanted{pod("mounted", "10.1.0.2"), pod("one", "10.1.0.3")}

	_, missing := d.finder("").expect(map[string]string{"mounted": mounted}, want...)
	says(t, missing["one"], netns.ErrNotFound, "10.1.0.3")

	f := d.finder(proc.path)
	f.expect(map[string]string{"mounted": mounted, "one": path}, want...)
	namespaces, err := f.All()
	for _, s := range namespaces {
		_ = s.Close()
	}
	if err != nil || len(namespaces) != 2 {
		t.Errorf("All gives %d namespaces, %v", len(namespaces), err)
	}
	// The namespace outlives the process it was found by.
	end(one)
	f.expect(map[string]string{"mounted": mounted, "one": later}, want...)
	end(second)
	_, missing = f.expect(map[string]string{"mounted": mounted}, want...)
	says(t, missing["one"], netns.ErrNotFound)
}

// A process's number is given to a process of another pod.
func TestFinderSeesReusedProcessNumbers(t *testing.T) {
	d := newRuntimeDir(t)
	proc := newProcfs(t)
	one, two := process(t, unix.CLONE_NEWNET), process(t, unix.CLONE_NEWNET)
	for i, cmd := range []*exec.Cmd{one, two} {
		d.address(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), fmt.Sprintf("10.1.0.%d", i+2))
	}
	path := proc.add("77", one.Process.Pid, 1000)
	f := d.finder(proc.path)
	want := []netns.Wanted{pod("one", "10.1.0.2"), pod("two", "10.1.0.3")}
	found, _ := f.expect(map[string]string{"one": path}, want...)
	if err := os.RemoveAll(filepath.Join(proc.path, "77")); err != nil {
		t.Fatal(err)
	}
	proc.add("77", two.Process.Pid, 1001)
	says(t, found["one"].Check(nil), netns.ErrGone, "leads to another")
	f.expect(map[string]string{"two": path}, want...)
}

// Of pods with hostUsers: false.
func TestFinderEntersUserNamespacedPods(t *testing.T) {
	d := newRuntimeDir(t)
	cmd := process(t, unix.CLONE_NEWUSER|unix.CLONE_NEWNET)
	path := filepath.Join(d.path, "a")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	d.address(path, "10.1.0.2", "fd01::2")
	f := d.finder("")
	found, _ := f.expect(map[string]string{"a": path}, pod("a", "10.1.0.2", "fd01::2"))
	err := found["a"].Do(func() error { return exec.Command("iptables", "-t", "nat", "-N", "NODEVOY-OUTPUT").Run() })
	if err != nil {
		t.Errorf("make a chain inside: %v", err)
	}
}

// foreignEnv has the path of a namespace that the process may not enter.
const foreignEnv = "NODEVOY_TEST_FOREIGN"

// The test runs itself in a user namespace of its own: there it is root, as an
// agent without the capabilities is, but not over the pods.
func TestFinderNamesTheCapabilityThatIsMissing(t *testing.T) {
	if path := os.Getenv(foreignEnv); path != "" {
		forbidden(t, path)
		return
	}
	d := newRuntimeDir(t)
	path := d.add("a", "10.1.0.2")
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), foreignEnv+"="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

func forbidden(t *testing.T, path string) {
	d := &runtimeDir{t, filepath.Dir(path)}
	want := pod("a", "10.1.0.2")
	_, err := netns.OpenPath(path)
	says(t, err, netns.ErrNotPermitted, "enter network namespace "+path, "capability SYS_ADMIN")
	f := d.finder("")
	_, missing := f.expect(nil, want)
	says(t, missing["a"], netns.ErrUnknown, "10.1.0.2")
	says(t, missing["a"], netns.ErrNotPermitted, path, "capability SYS_ADMIN")
	_, err = f.All()
	says(t, err, netns.ErrNotPermitted, path, "capability SYS_ADMIN")
	// The parent is a process that this one may not look into.
	proc := procfs{t, t.TempDir()}
	proc.add("1", os.Getppid(), 0)
	byProcess := &search{t: t, Finder: netns.New(netns.Config{Proc: proc.path}, time.Now, zaptest.NewLogger(t))}
	_, missing = byProcess.expect(nil, want)
	says(t, missing["a"], netns.ErrNotPermitted, proc.path, "capability SYS_PTRACE")
}

// An agent that isn't in the host's namespace itself.
func TestFinderTellsTheHostsNamespaceByItsFirstProcess(t *testing.T) {
	d := newRuntimeDir(t)
	host := process(t, unix.CLONE_NEWNET)
	d.address(fmt.Sprintf("/proc/%d/ns/net", host.Process.Pid), "10.1.0.2")
	proc := procfs{t, t.TempDir()}
	proc.add("1", host.Process.Pid, 0)
	proc.add("2", host.Process.Pid, 1)
	f := d.finder(proc.path)
	_, missing := f.expect(nil, pod("a", "10.1.0.2"))
	says(t, missing["a"], netns.ErrNotFound)
	if namespaces, err := f.All(); err != nil || len(namespaces) != 0 {
		t.Errorf("All gives %d namespaces, %v", len(namespaces), err)
	}
}
