// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCgroups(t *testing.T) {
	for _, tc := range []struct {
		name string
		text string
		want []string
	}{
		{name: "nothing"},
		{name: "cut off", text: "30 23 0:26"},
		{
			name: "unified",
			text: "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n31 23 0:7 / /sys/kernel/debug rw shared:3 - debugfs debugfs rw\n",
			want: []string{"/sys/fs/cgroup"},
		},
		{
			name: "beside the first version",
			text: "30 29 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n31 29 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			want: []string{"/sys/fs/cgroup/unified"},
		},
		{
			name: "the whole before a part, a name with blanks",
			text: "30 29 0:28 /kubepods/pod1 /part rw - cgroup2 none rw\n31 29 0:28 / /a\\040b\\134c rw shared:1 master:2 - cgroup2 none rw\n",
			want: []string{`/a b\c`, "/part"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, cgroups([]byte(tc.text))); diff != "" {
				t.Errorf("mount points (-want +got):\n%s", diff)
			}
		})
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
