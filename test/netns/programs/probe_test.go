// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/probe"
)

// limit is how long a probe may take.
const limit = 10 * time.Second

// probedEnv makes this test binary probe where it is, in the mode and with the
// directory of namespaces that it names, and print what it found.
const probedEnv = "NODEVOY_TEST_PROBE"

// verdict is what a probe found, as the process that probed prints it.
type verdict struct {
	Mode     string
	Families int
	Reasons  []string
}

func TestMain(m *testing.M) {
	asked := os.Getenv(probedEnv)
	if asked == "" {
		os.Exit(m.Run())
	}
	if err := probeHere(asked); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func probeHere(asked string) error {
	mode, dir, _ := strings.Cut(asked, ":")
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cfg := plan.DefaultConfig()
	cfg.Mode = plan.Mode(mode)
	found, err := probe.Run(ctx, cfg, netns.Config{Dirs: []string{dir}}, zap.NewNop())
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(verdict{found.Mode.String(), len(found.Families), found.Reasons})
}

// probe probes in the fixture, by a process that has no capabilities but these;
// all of them when none is named.
func (w *fixture) probe(mode plan.Mode, capabilities ...int) (verdict, error) {
	w.t.Helper()
	for c := range unix.CAP_LAST_CAP + 1 {
		if len(capabilities) > 0 && !slices.Contains(capabilities, c) {
			w.must(unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0))
		}
	}
	cmd := exec.Command("/proc/self/exe")
	// Built with the race detector it else takes a second to end.
	cmd.Env = append(os.Environ(), probedEnv+"="+mode.String()+":"+w.t.TempDir(), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return verdict{}, fmt.Errorf("%w: %s", err, stderr.String())
	}
	var found verdict
	w.must(json.Unmarshal(stdout.Bytes(), &found))
	return found, nil
}

func (w *fixture) said(found verdict, want ...string) {
	w.t.Helper()
	for _, text := range want {
		if !slices.ContainsFunc(found.Reasons, func(r string) bool { return strings.Contains(r, text) }) {
			w.t.Errorf("no reason %q in %q", text, found.Reasons)
		}
	}
}

// ebpfCNI attaches what an eBPF CNI does.
func (w *fixture) ebpfCNI() {
	w.t.Helper()
	cgroup := w.cgroup()
	w.filter(w.load("from_container", unix.BPF_PROG_TYPE_SCHED_CLS, 0), netlink.HANDLE_MIN_INGRESS, "cil_from_container")
	w.attach(w.load("cil_sock4_connect", unix.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, unix.BPF_CGROUP_INET4_CONNECT), cgroup, unix.BPF_CGROUP_INET4_CONNECT)
}

// hostCapabilities are those that host mode needs.
func hostCapabilities() []int { return []int{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW} }

func TestProbe(t *testing.T) {
	onPods, onConnect := "on pods' interfaces: veth7 tc ingress cil_from_container", "warning: eBPF programs act on connect (connect4"
	for _, tc := range []struct {
		name         string
		mode         plan.Mode
		capabilities []int
		fixture      func(w *fixture)
		want         plan.Mode
		reasons      []string
	}{
		{
			name: "nothing in the way", mode: plan.AutoMode, fixture: func(w *fixture) { w.cgroup() },
			want: plan.PodMode, reasons: []string{"there are no eBPF programs on pods' interfaces", "there is no load balancing at the socket"},
		},
		{
			name: "pod mode's capabilities", mode: plan.PodMode, capabilities: append(hostCapabilities(), unix.CAP_SYS_ADMIN),
			fixture: func(w *fixture) { w.cgroup() }, want: plan.PodMode, reasons: []string{"may enter network namespaces (capability SYS_ADMIN)"},
		},
		{
			name: "host mode's capabilities", mode: plan.AutoMode, capabilities: hostCapabilities(), fixture: func(w *fixture) { w.cgroup() },
			want: plan.HostMode, reasons: []string{"mode pod can't be used: no permission to enter network namespaces", "SYS_ADMIN"},
		},
		{
			name: "eBPF CNI", mode: plan.AutoMode, fixture: (*fixture).ebpfCNI,
			want: plan.PodMode, reasons: []string{onPods, onConnect + " cil_sock4_conne)", "address; Cilium needs socketLB.hostNamespaceOnly=true"},
		},
		{
			name: "eBPF CNI, host mode's capabilities", mode: plan.AutoMode, capabilities: hostCapabilities(), fixture: (*fixture).ebpfCNI,
			want: plan.HostMode,
			// A program's name takes more.
			reasons: []string{onPods, onConnect + ")", "warning: host mode redirects nothing that the eBPF programs on pods' interfaces (veth7 tc ingress"},
		},
		{
			name: "no cgroup2", mode: plan.AutoMode, fixture: (*fixture).cgroups,
			want: plan.PodMode, reasons: []string{"not known whether there is load balancing at the socket: the kernel doesn't tell: no cgroup2 is mounted"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newFixture(t)
			tc.fixture(w)
			found, err := w.probe(tc.mode, tc.capabilities...)
			w.must(err)
			if found.Mode != tc.want.String() || found.Families != 2 {
				t.Errorf("found %+v, want mode %s", found, tc.want)
			}
			w.said(found, tc.reasons...)
		})
	}
}

func TestProbeRefuses(t *testing.T) {
	for _, tc := range []struct {
		name         string
		mode         plan.Mode
		capabilities []int
		want         []string
	}{
		{"pod mode without SYS_ADMIN", plan.PodMode, hostCapabilities(), []string{"no permission to enter network namespaces", "capability SYS_ADMIN"}},
		{"no mode without NET_ADMIN", plan.AutoMode, []int{unix.CAP_NET_RAW}, []string{"neither mode", "SYS_ADMIN", "NET_ADMIN"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newFixture(t)
			found, err := w.probe(tc.mode, tc.capabilities...)
			if err == nil {
				t.Fatalf("found %+v, want a refusal", found)
			}
			for _, text := range tc.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("no %q in: %v", text, err)
				}
			}
		})
	}
}
