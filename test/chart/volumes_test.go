// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// What of the node the pods see, and who holds a token.
func TestVolumes(t *testing.T) {
	for name, dirs := range map[string][]string{
		"default": {"/run/netns"}, "pod": {"/run/netns"}, "host": nil, "dnat": nil,
		"all": {"/run/netns", "/var/run/docker/netns"},
	} {
		t.Run(name, func(t *testing.T) {
			var logs []string
			if name == "all" {
				logs = []string{"/var/log/nodevoy"}
			}
			spec := decode(t, render(t, "--values", cases(t)[name])).daemonSet.Spec.Template.Spec
			hostPaths := map[string]string{}
			for _, v := range spec.Volumes {
				if v.HostPath != nil {
					hostPaths[v.HostPath.Path] = string(*v.HostPath.Type)
				}
			}
			want := map[string]string{"/run/nodevoy-host": "DirectoryOrCreate", "/run/xtables.lock": "FileOrCreate"}
			for _, dir := range slices.Concat(dirs, logs) {
				want[dir] = "DirectoryOrCreate"
			}
			if diff := cmp.Diff(want, hostPaths); diff != "" {
				t.Errorf("paths of the node (-want +got):\n%s", diff)
			}
			wantMounts := map[string][]string{
				"bootstrap": slices.Concat([]string{"/run/nodevoy"}, logs),
				"agent": slices.Concat([]string{
					"/run/nodevoy", "/run/nodevoy-host", "/run/xtables.lock", "/var/run/secrets/kubernetes.io/serviceaccount",
				}, dirs),
				"envoy": slices.Concat([]string{"/run/nodevoy"}, logs, dirs),
			}
			if diff := cmp.Diff(wantMounts, mounts(spec)); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
		})
	}
}

// mounts are the paths that each container has something at.
func mounts(spec corev1.PodSpec) map[string][]string {
	all := map[string][]string{}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, m := range c.VolumeMounts {
			all[c.Name] = append(all[c.Name], m.MountPath)
		}
	}
	return all
}

// Envoy opens the paths that the agent finds, of pods that come later too: both
// see the node's directories at the node's own paths, and as they change. Nobody
// writes there, and what is mounted there never reaches the node.
func TestNamespacesAreWhereTheNodeHasThem(t *testing.T) {
	for name, file := range cases(t) {
		spec := decode(t, render(t, "--values", file)).daemonSet.Spec.Template.Spec
		hostPaths := map[string]string{}
		for _, v := range spec.Volumes {
			if strings.HasPrefix(v.Name, "netns-") {
				hostPaths[v.Name] = v.HostPath.Path
			}
		}
		for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
			for _, m := range c.VolumeMounts {
				hostPath, ok := hostPaths[m.Name]
				switch {
				case !ok && m.MountPropagation != nil:
					t.Errorf("%s: %s: %s has propagation %s", name, c.Name, m.Name, *m.MountPropagation)
				case !ok:
				case m.MountPath != hostPath || !m.ReadOnly || m.SubPath != "":
					t.Errorf("%s: %s has %s as %+v", name, c.Name, hostPath, m)
				case m.MountPropagation == nil || *m.MountPropagation != corev1.MountPropagationHostToContainer:
					t.Errorf("%s: %s does not see what comes to %s later", name, c.Name, hostPath)
				}
			}
		}
	}
}

// A runtime that has namespaces in no directory: no mount, and the agent is told
// that there is none.
func TestProcessesOnly(t *testing.T) {
	objects := decode(t, render(t, "--set-json", `redirect={"hostProc":true,"netnsDirs":[]}`))
	spec := objects.daemonSet.Spec.Template.Spec
	if !spec.HostPID {
		t.Error("the node's processes are not to be seen")
	}
	if diff := cmp.Diff([]string{"/run/nodevoy"}, mounts(spec)["envoy"]); diff != "" {
		t.Errorf("envoy's mounts (-want +got):\n%s", diff)
	}
	args := commands(objects)["agent"]
	for _, want := range []string{"--netns-dir=", "--proc=/proc"} {
		if !slices.Contains(args, want) {
			t.Errorf("no %s in %q", want, args)
		}
	}
}

// Host mode takes nothing for pods' namespaces, whatever is said of those.
func TestHostModeIgnoresNamespaces(t *testing.T) {
	plain := render(t, "--set", "redirect.mode=host")
	told := render(t, "--set-json", `redirect={"mode":"host","hostProc":true,"netnsDirs":["/run/docker/netns"]}`)
	if diff := cmp.Diff(string(plain), string(told)); diff != "" {
		t.Errorf("differs (-want +got):\n%s", diff)
	}
}

// argsWith are the arguments of a command with these values, which have to have one.
func argsWith(t *testing.T, values, command, want string) []string {
	t.Helper()
	args := commands(decode(t, render(t, "--set-json", values)))[command]
	if !slices.Contains(args, want) {
		t.Errorf("no %s in %q", want, args)
	}
	return args
}

// Envoy refuses connections before the kernel kills it. The binary takes whatever
// bound the chart does.
func TestHeap(t *testing.T) {
	for name, tc := range map[string]struct{ set, want string }{
		"the default":              {`envoy.maxHeap=""`, "858993459"},
		"a decimal limit":          {`envoy.resources={"limits":{"memory":"1.5G"}}`, "1200000000"},
		"a small limit":            {`envoy.resources={"limits":{"memory":"512Mi"}}`, "327155712"},
		"half of a smaller one":    {`envoy.resources={"limits":{"memory":"320Mi"}}`, "167772160"},
		"a limit in bytes":         {`envoy.resources={"limits":{"memory":134217728}}`, "67108864"},
		"a limit in thousandths":   {`envoy.resources={"limits":{"memory":"134217728000m"}}`, "67108864"},
		"no limit of memory":       {`envoy.resources={"limits":{"cpu":1,"memory":null}}`, "0"},
		"no resources":             {`envoy.resources=null`, "0"},
		"a bound":                  {`envoy.maxHeap="512Mi"`, "536870912"},
		"a bound in bytes":         {`envoy.maxHeap=536870912`, "536870912"},
		"a bound without a limit":  {`envoy={"maxHeap":"2Gi","resources":{"limits":{"memory":null}}}`, "2147483648"},
		"the least":                {`envoy.maxHeap="64Mi"`, "67108864"},
		"the least of a limit":     {`envoy.resources={"limits":{"memory":"128Mi"}}`, "67108864"},
		"a decimal bound":          {`envoy.maxHeap="0.5G"`, "500000000"},
		"none":                     {`envoy.maxHeap="0"`, "0"},
		"none, said without words": {`envoy.maxHeap=0`, "0"},
	} {
		t.Run(name, func(t *testing.T) {
			args := argsWith(t, tc.set, "bootstrap", "--envoy-max-heap="+tc.want)
			// The files, which it would write, are not here.
			here := slices.DeleteFunc(args, func(arg string) bool { return strings.Contains(arg, "output=") })
			if _, failure := run(t, nil, nodevoyPath(t), here...); failure != "" {
				t.Errorf("the chart accepts what the binary refuses: %s", failure)
			}
		})
	}
}

// Services in use take a part of Envoy's memory at most. The binary takes whatever
// limit the chart does.
func TestClusterMemory(t *testing.T) {
	for name, tc := range map[string]struct{ set, want string }{
		"the default":          {`envoy.clusterMemory=""`, "257698037"},
		"a smaller heap":       {`envoy.maxHeap="64Mi"`, "20132659"},
		"no bound of the heap": {`envoy.maxHeap=0`, "268435456"},
		"a limit":              {`envoy.clusterMemory="400Mi"`, "419430400"},
		"the least":            {`envoy.clusterMemory=8388608`, "8388608"},
		"none":                 {`envoy.clusterMemory="0"`, "0"},
		"none, as a number":    {`envoy.clusterMemory=0`, "0"},
	} {
		t.Run(name, func(t *testing.T) {
			args := argsWith(t, tc.set, "agent", "--cluster-memory="+tc.want)
			if _, failure := run(t, nil, nodevoyPath(t), append(args, "--help")...); failure != "" {
				t.Errorf("the chart accepts what the binary refuses: %s", failure)
			}
		})
	}
}

// Envoy has a worker for each whole CPU that it is sure to get.
func TestWorkers(t *testing.T) {
	for name, tc := range map[string]struct{ set, want string }{
		"the default":            {`envoy.accessLog="text"`, "1"},
		"a number":               {`envoy.concurrency=3`, "3"},
		"a number above request": {`envoy={"concurrency":4,"resources":{"requests":{"cpu":"2"}}}`, "4"},
		"whole CPUs":             {`envoy.resources={"requests":{"cpu":4}}`, "4"},
		"whole CPUs as text":     {`envoy.resources={"requests":{"cpu":"4"}}`, "4"},
		"thousandths":            {`envoy.resources={"requests":{"cpu":"2000m"}}`, "2"},
		"rounded down":           {`envoy.resources={"requests":{"cpu":"2999m"}}`, "2"},
		"a fraction":             {`envoy.resources={"requests":{"cpu":1.5}}`, "1"},
		"a limit above":          {`envoy.resources={"requests":{"cpu":"1"},"limits":{"cpu":"8"}}`, "1"},
		"a limit alone":          {`envoy.resources={"requests":{"cpu":null},"limits":{"cpu":"3"}}`, "3"},
		"neither":                {`envoy.resources={"requests":{"cpu":null}}`, "1"},
		"no resources":           {`envoy.resources=null`, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			var args []string
			for _, c := range containers(decode(t, render(t, "--set-json", tc.set))) {
				if c.Name == "envoy" {
					args = c.Args
				}
			}
			at := slices.Index(args, "--concurrency")
			if at < 0 || at+1 == len(args) || args[at+1] != tc.want {
				t.Errorf("want --concurrency %s in %q", tc.want, args)
			}
		})
	}
}

// The limit of a pod's connections follows the bound of Envoy's heap: one for each 6 MiB.
func TestConnectionsFollowTheHeap(t *testing.T) {
	for name, tc := range map[string]struct{ set, want string }{
		"the default":             {`envoy.maxConnectionsPerPod=""`, "136"},
		"a bound":                 {`envoy.maxHeap="512Mi"`, "85"},
		"another limit of memory": {`envoy.resources={"limits":{"memory":"4Gi"}}`, "546"},
		"no bound":                {`envoy.maxHeap="0"`, "128"},
		"a huge bound":            {`envoy={"maxHeap":"8Ti","resources":{"limits":{"memory":null}}}`, "1000000"},
		"asked for":               {`envoy.maxConnectionsPerPod=1000000`, "1000000"},
		"as text":                 {`envoy.maxConnectionsPerPod="500"`, "500"},
		"no limit":                {`envoy.maxConnectionsPerPod="0"`, "0"},
		"no limit as a number":    {`envoy.maxConnectionsPerPod=0`, "0"},
	} {
		t.Run(name, func(t *testing.T) {
			argsWith(t, tc.set, "agent", "--max-connections-per-pod="+tc.want)
		})
	}
}
