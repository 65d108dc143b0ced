// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/ebpf"
)

func TestOnPods(t *testing.T) {
	for _, tc := range []struct {
		name   string
		attach func(w *fixture)
		want   []ebpf.Program
	}{
		{name: "nothing", attach: func(*fixture) {}},
		{
			name: "tc ingress",
			attach: func(w *fixture) {
				w.filter(w.load("from_container", unix.BPF_PROG_TYPE_SCHED_CLS, 0), netlink.HANDLE_MIN_INGRESS, "cil_from_container-veth7")
			},
			want: []ebpf.Program{{Link: "veth7", Hook: "tc ingress", Name: "cil_from_container-veth7"}},
		},
		{
			name: "tc both ways",
			attach: func(w *fixture) {
				program := w.load("tc", unix.BPF_PROG_TYPE_SCHED_CLS, 0)
				w.filter(program, netlink.HANDLE_MIN_EGRESS, "out")
				w.filter(program, netlink.HANDLE_MIN_INGRESS, "in")
			},
			want: []ebpf.Program{{Link: "veth7", Hook: "tc ingress", Name: "in"}, {Link: "veth7", Hook: "tc egress", Name: "out"}},
		},
		{
			name: "tcx",
			attach: func(w *fixture) {
				for _, hook := range []uint32{unix.BPF_TCX_INGRESS, unix.BPF_TCX_EGRESS} {
					w.attach(w.load("cil_container", unix.BPF_PROG_TYPE_SCHED_CLS, 0), w.veth.Attrs().Index, hook)
				}
			},
			want: []ebpf.Program{{Link: "veth7", Hook: "tcx ingress", Name: "cil_container"}, {Link: "veth7", Hook: "tcx egress", Name: "cil_container"}},
		},
		{
			name: "another kind of interface",
			attach: func(w *fixture) {
				other, err := netlink.LinkByName("other")
				w.must(err)
				w.veth = other
				w.filter(w.load("tc", unix.BPF_PROG_TYPE_SCHED_CLS, 0), netlink.HANDLE_MIN_INGRESS, "in")
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newFixture(t)
			tc.attach(w)
			got, err := ebpf.OnPods()
			w.must(err)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("programs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnConnect(t *testing.T) {
	hooks := map[string]uint32{"connect4": unix.BPF_CGROUP_INET4_CONNECT, "connect6": unix.BPF_CGROUP_INET6_CONNECT}
	for _, tc := range []struct {
		name string
		on   []string
		want []ebpf.Program
	}{
		{name: "nothing"},
		{name: "one family", on: []string{"connect6"}, want: []ebpf.Program{{Hook: "connect6", Name: "cil_connect6"}}},
		{
			name: "both", on: []string{"connect4", "connect6"},
			want: []ebpf.Program{{Hook: "connect4", Name: "cil_connect4"}, {Hook: "connect6", Name: "cil_connect6"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newFixture(t)
			cgroup := w.cgroup()
			for _, name := range tc.on {
				w.attach(w.load("cil_"+name, unix.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, hooks[name]), cgroup, hooks[name])
			}
			got, err := ebpf.OnConnect()
			w.must(err)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("programs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnConnectWithoutCgroups(t *testing.T) {
	w := newFixture(t)
	w.cgroups()
	if found, err := ebpf.OnConnect(); !errors.Is(err, ebpf.ErrUnknown) {
		t.Errorf("got %v, %v; want ErrUnknown", found, err)
	}
}
