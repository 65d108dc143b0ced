// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/netns"
)

// Each test begins with a new Finder, as an agent does that was started again: it
// doesn't know what was there first.

// other is a pod that is not asked for.
func other(name string, ips ...string) netns.Wanted {
	p := pod(name, ips...)
	p.ExcludeOnly = true
	return p
}

func TestFinderKnowsPodsThatArentAskedFor(t *testing.T) {
	d := newRuntimeDir(t)
	a := d.add("a", "10.1.0.2")
	// It may be anybody's address, and the same pod's in turn be elsewhere.
	d.add("b", "10.1.0.3", "net1=10.1.0.2", "net1=10.1.0.4")
	d.add("c", "10.1.0.4", "net1=10.1.0.3", "net1=10.1.0.2")
	d.add("d", "10.1.0.5", "net1=10.1.0.4")
	bystanders := []netns.Wanted{other("b", "10.1.0.3"), other("c", "10.1.0.4"), other("d", "10.1.0.5")}
	d.finder("").find(map[string]string{"a": a}, append(bystanders, pod("a", "10.1.0.2"))...)
	// Nor is another's namespace taken when the pod's own isn't to be seen.
	d.remove(a)
	problems := d.finder("").find(nil, append(bystanders, pod("a", "10.1.0.2"))...)
	says(t, problems["a"], netns.ErrAmbiguous, "10.1.0.2 of default/a")
}

// find looks once, for all pods of the node, and expects those that are asked for.
func (s *search) find(paths map[string]string, pods ...netns.Wanted) map[string]error {
	s.t.Helper()
	found, problems := s.later(pods...)
	got := map[string]string{}
	for uid, ns := range found {
		got[uid] = ns.Path()
	}
	if fmt.Sprint(got) != fmt.Sprint(paths) {
		s.t.Errorf("found %v, want %v; %v", got, paths, problems)
	}
	return problems
}

func TestFinderGivesNoOthersNamespace(t *testing.T) {
	d := newRuntimeDir(t)
	d.add("b", "10.1.0.3", "net1=10.1.0.2")
	problems := d.finder("").find(nil, pod("a", "10.1.0.2"), other("b", "10.1.0.3"))
	says(t, problems["a"], netns.ErrAmbiguous, "default/a", "default/b", "in common")
}

// The node routes an address to one pod, whatever others do: also without their own.
func TestFinderFollowsTheNodesRoutes(t *testing.T) {
	for name, ip := range map[string]string{"ipv4": "10.1.0.2", "ipv6": "fd01::2"} {
		t.Run(name, func(t *testing.T) {
			d := newRuntimeDir(t)
			a := d.add("a")
			d.connect(a, ip)
			d.add("b", "net1="+ip)
			d.finder("").find(map[string]string{"a": a}, pod("a", ip), other("b", "10.1.0.3"))
			d.remove(a)
			problems := d.finder("").find(nil, pod("a", ip), other("b", "10.1.0.3"))
			says(t, problems["a"], netns.ErrAmbiguous, "default/a", "by the node's routes")
		})
	}
}

// connect gives a namespace an interface that the node has a route to.
func (d *runtimeDir) connect(path, ip string) {
	d.t.Helper()
	fd, err := vnetns.GetFromPath(path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = fd.Close() }()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "host-" + filepath.Base(path)}, PeerName: "eth0", PeerNamespace: netlink.NsFd(fd)}
	err = errors.Join(netlink.LinkAdd(veth), netlink.LinkSetUp(veth))
	d.address(path, ip)
	addr := netip.MustParseAddr(ip)
	to := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
	if err := errors.Join(err, netlink.RouteAdd(&netlink.Route{LinkIndex: veth.Attrs().Index, Dst: to, Scope: netlink.SCOPE_LINK})); err != nil {
		d.t.Fatal(err)
	}
}

// A process is in its pod's cgroup, whatever the pod does.
func TestFinderFollowsCgroups(t *testing.T) {
	const a, b = "0b9a1f2c-11d3-4c5e-8f6a-0123456789ab", "0b9a1f2c-11d3-4c5e-8f6a-ba9876543210"
	for name, cgroup := range map[string]string{
		"cgroupfs":          "0::/kubepods/burstable/pod" + a + "/4711\n",
		"systemd":           "0::/kubepods.slice/kubepods-pod0b9a1f2c_11d3_4c5e_8f6a_0123456789ab.slice/cri-containerd-4711.scope\n",
		"of both versions":  "2:cpu:/kubepods/pod" + a + "/4711\n1:name=systemd:/\n0::/\n",
		"seen from another": "0::/../../pod" + a + "/4711\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := newRuntimeDir(t)
			own := d.add("a", "10.1.0.2")
			d.add("b", "net1=10.1.0.2")
			proc := newProcfs(t)
			inside := process(t, 0)
			d.do(own, func() error { inside = process(t, 0); return nil })
			proc.add("77", inside.Process.Pid, 1000)
			if err := os.WriteFile(filepath.Join(proc.path, "77/cgroup"), []byte(cgroup), 0o600); err != nil {
				t.Fatal(err)
			}
			pods := []netns.Wanted{pod(a, "10.1.0.2"), other(b, "10.1.0.3")}
			says(t, d.finder("").find(nil, pods...)[a], netns.ErrAmbiguous)
			d.finder(proc.path).find(map[string]string{a: own}, pods...)
			// It isn't the other's, though that has the address too.
			pods = []netns.Wanted{pod(b, "10.1.0.2"), other(a, "10.1.0.3")}
			d.finder(proc.path).find(map[string]string{b: filepath.Join(d.path, "b")}, pods...)
		})
	}
}

// What the host's first process sees has a path that no process number is in.
func TestFinderPrefersTheHostsMounts(t *testing.T) {
	d := newRuntimeDir(t)
	path := d.add("a", "10.1.0.2")
	proc := newProcfs(t)
	inside := process(t, 0)
	d.do(path, func() error { inside = process(t, 0); return nil })
	byNumber := proc.add("77", inside.Process.Pid, 1000)
	f := &search{t: t, now: time.Unix(1000, 0), Finder: (&runtimeDir{t, t.TempDir()}).finder(proc.path).Finder}
	f.find(map[string]string{"a": byNumber}, pod("a", "10.1.0.2"))
	root := filepath.Join(proc.path, "1/root/run")
	if err := errors.Join(os.MkdirAll(root, 0o700), os.Symlink(d.path, filepath.Join(root, "netns"))); err != nil {
		t.Fatal(err)
	}
	f.Release("a")
	f.find(map[string]string{"a": filepath.Join(root, "netns/a")}, pod("a", "10.1.0.2"))
	namespaces, err := f.All()
	for _, s := range namespaces {
		_ = s.Close()
	}
	if err != nil || len(namespaces) != 1 {
		t.Errorf("All gives %d namespaces, %v", len(namespaces), err)
	}
}

// What can't be looked at is not gone.
func TestFinderKeepsWhatItCantLookAt(t *testing.T) {
	d := newRuntimeDir(t)
	a := d.add("a", "10.1.0.2")
	f := d.finder("")
	want, absent := pod("a", "10.1.0.2"), pod("b", "10.1.0.3")
	before, _ := f.expect(map[string]string{"a": a}, want)
	moved := d.path + ".moved"
	if err := errors.Join(os.Rename(d.path, moved), os.Symlink(d.path, d.path)); err != nil {
		t.Fatal(err)
	}
	found, problems := f.later(want, absent)
	if found["a"] != before["a"] || found["a"].Do(func() error { return nil }) != nil {
		t.Errorf("found %v, want what was held; %v", found, problems)
	}
	for _, uid := range []string{"a", "b"} {
		says(t, problems[uid], netns.ErrUnknown, d.path)
		if errors.Is(problems[uid], netns.ErrNotFound) || errors.Is(problems[uid], netns.ErrGone) {
			t.Errorf("%s: %v", uid, problems[uid])
		}
	}
	if err := errors.Join(os.Remove(d.path), os.Rename(moved, d.path)); err != nil {
		t.Fatal(err)
	}
	after, problems := f.later(want, absent)
	if after["a"] != before["a"] || problems["a"] != nil {
		t.Errorf("found %v, %v, want what was held", after, problems)
	}
	says(t, problems["b"], netns.ErrNotFound)
}

// A process without free file descriptors can't tell what is there.
func TestFinderWithoutFiles(t *testing.T) {
	d := newRuntimeDir(t)
	a, b := d.add("a", "10.1.0.2"), d.add("b", "10.1.0.3")
	f := d.finder("")
	before, _ := f.expect(map[string]string{"a": a}, pod("a", "10.1.0.2"))
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for spare := range 8 {
		few := unix.Rlimit{Cur: uint64(openFiles(t) - 1 + spare), Max: limit.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
			t.Fatal(err)
		}
		found, problems := f.later(pod("a", "10.1.0.2"), pod("b", "10.1.0.3"), pod("c", "10.1.0.4"))
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		if found["a"] != before["a"] {
			t.Errorf("with %d files to spare, a is lost: %v", spare, problems["a"])
		}
		for _, uid := range []string{"b", "c"} {
			err := problems[uid]
			if spare == 0 || found[uid] == nil && (uid != "c" || !errors.Is(err, netns.ErrNotFound)) {
				says(t, err, netns.ErrUnknown, "too many open files")
			}
		}
		f.Release("b")
	}
	f.expect(map[string]string{"a": a, "b": b}, pod("a", "10.1.0.2"), pod("b", "10.1.0.3"))
}

// A pod may give itself any number of addresses.
func TestFinderBoundsAddresses(t *testing.T) {
	d := newRuntimeDir(t)
	a, hostile := d.add("a", "10.1.0.2"), d.add("hostile", "10.1.0.3")
	f := d.finder("")
	pods := []netns.Wanted{pod("a", "10.1.0.2"), pod("hostile", "10.1.0.3")}
	before := f.find(map[string]string{"a": a, "hostile": hostile}, pods...)
	if len(before) > 0 {
		t.Fatal(before)
	}
	d.do(hostile, func() error {
		var errs []error
		for i := range 5_000 {
			errs = append(errs, address("eth0", netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})))
		}
		return errors.Join(errs...)
	})
	var memory, now runtime.MemStats
	runtime.ReadMemStats(&memory)
	problems := f.find(map[string]string{"a": a, "hostile": hostile}, pods...)
	runtime.ReadMemStats(&now)
	says(t, problems["hostile"], netns.ErrUnknown, hostile)
	if took := now.TotalAlloc - memory.TotalAlloc; problems["a"] != nil || took > 4<<20 {
		t.Errorf("%d KiB were used; a: %v", took>>10, problems["a"])
	}
	d.finder("").find(map[string]string{"a": a}, pods...)
}
