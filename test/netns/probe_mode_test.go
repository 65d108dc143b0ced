// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/probe"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// namespaces is a directory with a mount of one network namespace, as container
// runtimes have it.
func (w *fixture) namespaces() netns.Config {
	w.t.Helper()
	dir := w.t.TempDir()
	w.mountNamespace(dir)
	return netns.Config{Dirs: []string{dir}}
}

func (w *fixture) mountNamespace(dir string) {
	w.t.Helper()
	path := filepath.Join(dir, "cni-1")
	w.must(os.WriteFile(path, nil, 0o600))
	w.must(w.enrolled.Do(func() error { return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "") }))
	w.t.Cleanup(func() { w.must(unix.Unmount(path, unix.MNT_DETACH)) })
}

func (w *fixture) probe(mode plan.Mode, backend netfilter.Backend, namespaces netns.Config) (probe.Findings, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	cfg := plan.DefaultConfig()
	cfg.Mode, cfg.Backend = mode, backend
	return probe.Run(ctx, cfg, namespaces, zap.NewNop())
}

// TestProbeModes: which mode the probe chooses on real nodes, what it says, and
// that it leaves no trace.
func TestProbeModes(t *testing.T) {
	for _, tc := range []struct {
		setting
		mode    plan.Mode
		chosen  netfilter.Backend
		reasons []string
	}{
		{setting{"", netfilter.NFT, space.Unnumbered, false, "iptables"}, plan.PodMode, netfilter.NFT, []string{"mode pod was asked for", "1 now"}},
		{setting{"", netfilter.Legacy, space.Unnumbered, false, "iptables"}, plan.PodMode, netfilter.Legacy, []string{"by iptables-legacy"}},
		{setting{"", netfilter.AutoBackend, space.Unnumbered, false, "iptables"}, plan.AutoMode, netfilter.NFT, []string{"mode pod: the node has what it needs"}},
		// Here host mode can't work.
		{setting{"", netfilter.AutoBackend, space.Bridged, true, "nftables"}, plan.AutoMode, netfilter.NFT, []string{"kube-proxy is in nftables mode", "br_netfilter, interface veth2"}},
	} {
		t.Run(fmt.Sprint(tc.mode, "-", tc.setting), func(t *testing.T) {
			w := &fixture{Node: space.New(t), t: t}
			if tc.wiring == space.Bridged {
				w.Bridge(tc.netfilter)
			}
			w.enrolled = w.Pod(tc.wiring)
			namespaces := w.namespaces()
			w.kubeProxy(setting{backend: netfilter.NFT, proxy: tc.proxy})
			w.useTables()
			before := w.snapshot()
			got, err := w.probe(tc.mode, tc.backend, namespaces)
			w.must(err)
			if got.Mode != plan.PodMode || got.Backend != tc.chosen || len(got.Families) != 2 || got.Mechanism != "" {
				t.Errorf("found %+v", got)
			}
			w.said(got.Reasons, tc.reasons...)
			// This root may not ask about eBPF, and says so.
			w.said(got.Reasons, "not known whether there are eBPF programs on pods' interfaces", "not known whether there is load balancing at the socket")
			if after := w.snapshot(); after != before {
				t.Errorf("the probe has left something:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

func (w *fixture) said(reasons []string, want ...string) {
	w.t.Helper()
	for _, text := range want {
		if !slices.ContainsFunc(reasons, func(r string) bool { return strings.Contains(r, text) }) {
			w.t.Errorf("no reason %q in %q", text, reasons)
		}
	}
}

// TestProbeWaitsForTheLock: what can't be told as long as another process holds the
// lock of the legacy tables is told once it has let go.
func TestProbeWaitsForTheLock(t *testing.T) {
	w := &fixture{Node: space.New(t), t: t}
	w.enrolled = w.Pod(space.Unnumbered)
	w.kubeProxy(setting{backend: netfilter.Legacy, proxy: "iptables"})
	// Not the machine's, for which other tests wait.
	path := filepath.Join(t.TempDir(), "xtables.lock")
	t.Setenv("XTABLES_LOCKFILE", path)
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	w.must(err)
	w.must(unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	held := true
	core, _ := observer.New(zap.WarnLevel)
	log := zap.New(core, zap.Hooks(func(e zapcore.Entry) error {
		if held && strings.Contains(e.Message, "can't be probed yet") {
			held = false
			return lock.Close()
		}
		return nil
	}))
	cfg := plan.DefaultConfig()
	cfg.Mode = plan.HostMode
	got, err := probe.Run(t.Context(), cfg, netns.Config{}, log)
	w.must(err)
	if held || got.Backend != netfilter.Legacy || got.ProxyMode != "iptables" || len(got.Families) != 2 {
		t.Errorf("found %+v, the lock is held: %v", got, held)
	}
}

// TestProbeWithoutNamespaces: a node on which none can be found, or none made.
func TestProbeWithoutNamespaces(t *testing.T) {
	w := newFixture(t, setting{plan.DNAT, netfilter.NFT, space.Unnumbered, false, "iptables"})
	nowhere := netns.Config{Dirs: []string{filepath.Join(t.TempDir(), "none")}}
	if _, err := w.probe(plan.PodMode, netfilter.NFT, nowhere); err == nil || !strings.Contains(err.Error(), nowhere.Dirs[0]) || !strings.Contains(err.Error(), "HostToContainer") {
		t.Errorf("Probe: %v, want a refusal that names %s", err, nowhere.Dirs[0])
	}
	got, err := w.probe(plan.AutoMode, netfilter.NFT, nowhere)
	w.must(err)
	if got.Mode != plan.HostMode || got.Mechanism != plan.DNAT {
		t.Errorf("found %+v, want host mode", got)
	}
	w.said(got.Reasons, "mode pod can't be used: pods' network namespaces are not to be seen", "mode host: the node has what it needs")

	before, err := os.ReadFile("/proc/sys/user/max_net_namespaces")
	w.must(err)
	w.Sysctl("user/max_net_namespaces=0")
	_, err = w.probe(plan.PodMode, netfilter.NFT, w.namespaces())
	w.Sysctl("user/max_net_namespaces=" + strings.TrimSpace(string(before)))
	if err == nil || !strings.Contains(err.Error(), "user.max_net_namespaces") {
		t.Errorf("Probe: %v, want a refusal that names the limit", err)
	}
}

// TestProbeBothBlocked: neither mode can be used, and both lacks are named.
func TestProbeBothBlocked(t *testing.T) {
	w := newFixture(t, setting{plan.TPROXY, netfilter.NFT, space.Bridged, true, "nftables"})
	_, err := w.probe(plan.AutoMode, netfilter.NFT, netns.Config{Dirs: []string{"/run/netns"}})
	if err == nil || !strings.Contains(err.Error(), "/run/netns") || !strings.Contains(err.Error(), "bridge-nf-call-iptables") {
		t.Errorf("Probe: %v, want a refusal that names both lacks", err)
	}
}

// TestProbeWithoutConnlimit: where iptables lacks the match, pods are redirected
// without a limit, and the probe says so.
func TestProbeWithoutConnlimit(t *testing.T) {
	found, err := filepath.Glob("/usr/lib/*/xtables/libxt_connlimit.so")
	if err != nil || len(found) != 1 {
		t.Fatalf("the match connlimit: %q, %v", found, err)
	}
	rest, err := filepath.Glob(filepath.Join(filepath.Dir(found[0]), "*.so"))
	if err != nil {
		t.Fatal(err)
	}
	without := t.TempDir()
	for _, path := range rest {
		if path != found[0] {
			if err := os.Symlink(path, filepath.Join(without, filepath.Base(path))); err != nil {
				t.Fatal(err)
			}
		}
	}
	eachBackend(t, func(t *testing.T, b netfilter.Backend) {
		for _, mode := range []plan.Mode{plan.HostMode, plan.PodMode} {
			w := newFixture(t, setting{plan.DNAT, b, space.Unnumbered, false, "iptables"})
			namespaces := w.namespaces()
			limited, err := w.probe(mode, b, namespaces)
			w.must(err)
			w.said(limited.Reasons, "at most 128 connections of a pod are redirected at a time")
			t.Run(mode.String(), func(t *testing.T) {
				t.Setenv("XTABLES_LIBDIR", without)
				got, err := w.probe(mode, b, namespaces)
				w.must(err)
				if got.Mode != mode || got.Backend != b || len(got.Families) != 2 || !got.Uncounted {
					t.Errorf("found %+v", got)
				}
				w.said(got.Reasons, "warning: connections of a pod are not limited, for want of the match connlimit")
			})
		}
	})
}

// TestScratch: a new namespace with nothing in it, that ends with the call.
func TestScratch(t *testing.T) {
	w := &fixture{Node: space.New(t), t: t}
	home, err := os.Readlink("/proc/thread-self/ns/net")
	w.must(err)
	outside, err := os.Open("/proc/thread-self/ns/net")
	w.must(err)
	defer func() { w.must(outside.Close()) }()
	failed := errors.New("failed")
	err = netns.Scratch(func() error {
		there, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		links, err := net.Interfaces()
		if err != nil {
			return err
		}
		if there == home || len(links) != 1 || links[0].Name != "lo" {
			t.Errorf("in %s with %v, want lo in another than %s", there, links, home)
		}
		own, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer own.Close()
		// Its other end tells when the namespace has ended.
		if err := own.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "inside"}, PeerName: "scratch", PeerNamespace: netlink.NsFd(outside.Fd())}); err != nil {
			return err
		}
		return failed
	})
	if !errors.Is(err, failed) {
		t.Errorf("Scratch: %v, want what was returned inside", err)
	}
	if back, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || back != home {
		t.Errorf("back in %s, %v; want %s", back, err, home)
	}
	space.Until(t, limit, "the namespace to end", func() error {
		if _, err := net.InterfaceByName("scratch"); err == nil {
			return errors.New("the other end of its veth is there")
		}
		return nil
	})
}

// TestPreflight: what is seen of directories of namespaces, and whether they are
// mounted so that new ones will be.
func TestPreflight(t *testing.T) {
	w := &fixture{Node: space.New(t), t: t}
	w.enrolled = w.Pod(space.Unnumbered)
	parent := t.TempDir()
	dir, link := filepath.Join(parent, "netns"), filepath.Join(parent, "link")
	w.must(os.Mkdir(dir, 0o755))
	w.must(os.Symlink(dir, link))
	cfg := netns.Config{Dirs: []string{filepath.Join(parent, "none"), dir, link}}
	preflight := func(want netns.Preflight) {
		t.Helper()
		got, err := cfg.Preflight()
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("saw %+v, %v; want %+v", got, err, want)
		}
	}
	preflight(netns.Preflight{Dirs: []string{dir}})
	// As kubelet mounts a directory of the host's without propagation, and with.
	w.must(unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	t.Cleanup(func() { w.must(unix.Unmount(dir, unix.MNT_DETACH)) })
	w.must(unix.Mount("", dir, "", unix.MS_PRIVATE, ""))
	preflight(netns.Preflight{Dirs: []string{dir}, Stale: []string{dir}})
	w.must(unix.Mount("", dir, "", unix.MS_SHARED, ""))
	w.mountNamespace(dir)
	w.must(os.WriteFile(filepath.Join(dir, "left-over"), nil, 0o600))
	preflight(netns.Preflight{Dirs: []string{dir}, Namespaces: 1})

	cfg.Proc = "/proc"
	preflight(netns.Preflight{Dirs: []string{dir}, Namespaces: 1, Proc: true})
	cfg.Proc = parent
	if _, err := cfg.Preflight(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Preflight: %v, want that %s is no /proc", err, parent)
	}
}
