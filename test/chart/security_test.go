// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// What each container may do, in every mode of redirection and every case;
// nothing else is added anywhere.
func TestCapabilities(t *testing.T) {
	type caps = []corev1.Capability
	for name, want := range map[string]map[string]caps{
		"default": {"agent": {"NET_ADMIN", "NET_RAW", "SYS_ADMIN"}, "envoy": {"NET_ADMIN", "SYS_ADMIN", "SETUID", "SETGID"}},
		"pod":     {"agent": {"NET_ADMIN", "NET_RAW", "SYS_ADMIN"}, "envoy": {"NET_ADMIN", "SYS_ADMIN", "SETUID", "SETGID"}},
		"all":     {"agent": {"NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"}, "envoy": {"NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "SETUID", "SETGID"}},
		"host":    {"agent": {"NET_ADMIN", "NET_RAW"}, "envoy": {"NET_RAW", "SETUID", "SETGID"}},
		"dnat":    {"agent": {"NET_ADMIN", "NET_RAW"}, "envoy": nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, container := range []string{"bootstrap", "server", "client"} {
				want[container] = nil
			}
			got := map[string]caps{}
			for _, c := range containers(decode(t, render(t, "--values", cases(t)[name]))) {
				s := c.SecurityContext
				if s == nil || s.Capabilities == nil {
					t.Fatalf("%s has no security context", c.Name)
				}
				if diff := cmp.Diff(caps{"ALL"}, s.Capabilities.Drop); diff != "" {
					t.Errorf("%s drops (-want +got):\n%s", c.Name, diff)
				}
				got[c.Name] = s.Capabilities.Add
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("capabilities added (-want +got):\n%s", diff)
			}
		})
	}
}

// Envoy itself keeps none of those that its launcher becomes another user by, and
// is never root: not even where it could be that user from the start.
func TestEnvoyKeeps(t *testing.T) {
	for name, want := range map[string]string{
		"default": "NET_ADMIN,SYS_ADMIN", "pod": "NET_ADMIN,SYS_ADMIN", "all": "NET_ADMIN,SYS_ADMIN,SYS_PTRACE", "host": "NET_RAW", "dnat": "",
	} {
		spec := decode(t, render(t, "--values", cases(t)[name])).daemonSet.Spec.Template.Spec
		envoy := envoyOf(t, spec)
		flags, _ := launch(t, envoy)
		for _, flag := range []string{"--user=65532", "--capabilities=" + want} {
			if !slices.Contains(flags, flag) {
				t.Errorf("%s: no %s in %q", name, flag, flags)
			}
		}
		if s := envoy.SecurityContext; (want == "") != (s.RunAsNonRoot != nil && *s.RunAsNonRoot && s.RunAsUser != nil && *s.RunAsUser == 65532) {
			t.Errorf("%s: with the capabilities %q, it is started as %v", name, want, s.RunAsUser)
		}
		if diff := cmp.Diff([]int64{65532}, spec.SecurityContext.SupplementalGroups); diff != "" {
			t.Errorf("%s: the agent isn't in Envoy's group (-want +got):\n%s", name, diff)
		}
	}
}

// A values file without a row in TestCapabilities would not be looked at.
func TestCapabilitiesCoverEveryCase(t *testing.T) {
	if diff := cmp.Diff([]string{"all", "default", "dnat", "host", "pod"}, slices.Sorted(maps.Keys(cases(t)))); diff != "" {
		t.Errorf("cases (-in TestCapabilities +in testdata):\n%s", diff)
	}
}

func TestContainersAreConfined(t *testing.T) {
	for name, file := range cases(t) {
		t.Run(name, func(t *testing.T) {
			objects := decode(t, render(t, "--values", file))
			for _, c := range containers(objects) {
				s := c.SecurityContext
				is := func(b *bool, want bool) bool { return b != nil && *b == want }
				if !is(s.Privileged, false) || !is(s.AllowPrivilegeEscalation, false) || !is(s.ReadOnlyRootFilesystem, true) {
					t.Errorf("%s: privileged, able to gain privileges, or with a writable root", c.Name)
				}
				// A port of a pod in the node's network is a hostPort, and keeps
				// a second generation off the node.
				if len(c.Ports) > 0 && c.Name != "server" {
					t.Errorf("%s declares ports", c.Name)
				}
			}
			for _, spec := range podSpecs(objects) {
				if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
					t.Error("a token is mounted into every container")
				}
				if s := spec.SecurityContext; s == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
					t.Error("no seccomp profile")
				}
				// Case all has redirect.hostProc.
				if spec.HostIPC || spec.HostPID != (name == "all" && spec.HostNetwork) {
					t.Errorf("shares the node's memory: %v, its process ids: %v", spec.HostIPC, spec.HostPID)
				}
			}
		})
	}
}

func TestRights(t *testing.T) {
	want := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"namespaces", "nodes", "pods", "services"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}
	objects := decode(t, render(t))
	if diff := cmp.Diff(want, objects.clusterRole.Rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	if objects.kinds["Role"] != 0 || objects.kinds["ClusterRole"] != 1 || objects.kinds["ClusterRoleBinding"] != 1 {
		t.Errorf("other rights besides: %v", objects.kinds)
	}
}

// The DaemonSet's controller adopts any pod that its selector matches, and the
// Service of the metrics would send scrapes there.
func TestSelectorMatchesOnlyItsOwn(t *testing.T) {
	for name, file := range cases(t) {
		objects := decode(t, render(t, "--values", file))
		selector := labels.SelectorFromSet(objects.daemonSet.Spec.Selector.MatchLabels)
		if !selector.Matches(labels.Set(objects.daemonSet.Spec.Template.Labels)) {
			t.Errorf("%s: the selector misses the DaemonSet's own pods", name)
		}
		for pod, set := range map[string]map[string]string{
			"client": objects.pod.Labels, "server": objects.deployment.Spec.Template.Labels,
		} {
			if selector.Matches(labels.Set(set)) {
				t.Errorf("%s: the selector matches the %s of helm test", name, pod)
			}
		}
	}
}

// Envoy outlives the agent, which drains it, and kubelet has the patience for that.
func TestTimesOfTheEnd(t *testing.T) {
	for name, drain := range map[string]int64{"default": 20, "dnat": 1, "all": 45} {
		spec := decode(t, render(t, "--values", cases(t)[name])).daemonSet.Spec.Template.Spec
		envoy := envoyOf(t, spec)
		if p := envoy.RestartPolicy; p == nil || *p != corev1.ContainerRestartPolicyAlways {
			t.Errorf("%s: envoy is not a sidecar, which would end after the agent", name)
		}
		if envoy.Lifecycle != nil {
			t.Errorf("%s: something delays the end of envoy", name)
		}
		// 15 s is what the agent takes at most to clean the kernel.
		if got := *spec.TerminationGracePeriodSeconds; got < drain+15 {
			t.Errorf("%s: kubelet waits only %d s", name, got)
		}
	}
}

// Envoy can't start without its first configuration.
func TestEnvoyStartsAfterBootstrap(t *testing.T) {
	var names []string
	for _, c := range decode(t, render(t)).daemonSet.Spec.Template.Spec.InitContainers {
		names = append(names, c.Name)
	}
	if diff := cmp.Diff([]string{"bootstrap", "envoy"}, names); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func envoyOf(t *testing.T, spec corev1.PodSpec) corev1.Container {
	t.Helper()
	at := slices.IndexFunc(spec.InitContainers, func(c corev1.Container) bool { return c.Name == "envoy" })
	if at < 0 {
		t.Fatal("the DaemonSet has no Envoy before its agent")
	}
	return spec.InitContainers[at]
}

func podSpecs(o objects) []corev1.PodSpec {
	return []corev1.PodSpec{o.daemonSet.Spec.Template.Spec, o.deployment.Spec.Template.Spec, o.pod.Spec}
}

func containers(o objects) []corev1.Container {
	var all []corev1.Container
	for _, spec := range podSpecs(o) {
		all = append(append(all, spec.InitContainers...), spec.Containers...)
	}
	return all
}
