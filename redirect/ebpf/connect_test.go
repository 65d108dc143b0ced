// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
)

// TestWholeHierarchyFirst: a mount of a part of the cgroups comes after one of all.
func TestWholeHierarchyFirst(t *testing.T) {
	mounts := []*mountinfo.Info{{Root: "/kubepods/pod1", Mountpoint: "/part"}, {Root: "/", Mountpoint: "/a"}, {Root: "/", Mountpoint: "/b"}}
	wholeFirst(mounts)
	var got []string
	for _, m := range mounts {
		got = append(got, m.Mountpoint)
	}
	if diff := cmp.Diff([]string{"/a", "/b", "/part"}, got); diff != "" {
		t.Errorf("mount points (-want +got):\n%s", diff)
	}
}

func TestProgramText(t *testing.T) {
	for want, p := range map[string]Program{
		"veth1 tc ingress from_container": {Link: "veth1", Hook: "tc ingress", Name: "from_container"},
		"veth1 tcx egress":                {Link: "veth1", Hook: "tcx egress"},
		"connect4 cil_sock4_connect":      {Hook: "connect4", Name: "cil_sock4_connect"},
		"connect6":                        {Hook: "connect6"},
	} {
		if got := p.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
