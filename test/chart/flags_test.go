// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// commands are the command lines of the binary that a rendered chart has, by
// container and place, with what kubelet would put in for variables.
func commands(o objects) map[string][]string {
	found := map[string][]string{}
	add := func(name string, argv ...string) {
		if len(argv) == 0 || argv[0] != "nodevoy" {
			return
		}
		for i, arg := range argv {
			argv[i] = strings.NewReplacer("$(NODE_NAME)", "node-1", "$(POD_IP)", "10.0.0.1").Replace(arg)
		}
		found[name] = argv[1:]
	}
	probe := func(name string, p *corev1.Probe) {
		if p != nil && p.Exec != nil {
			add(name, slices.Clone(p.Exec.Command)...)
		}
	}
	for _, c := range containers(o) {
		add(c.Name, slices.Concat(c.Command, c.Args)...)
		probe(c.Name+" startup", c.StartupProbe)
		probe(c.Name+" liveness", c.LivenessProbe)
		probe(c.Name+" readiness", c.ReadinessProbe)
	}
	return found
}

// The binary reads every flag and value before it shows its help, so a flag it
// doesn't have, or a value it can't read, ends in an error instead.
func TestFlagsExist(t *testing.T) {
	nodevoy := nodevoyPath(t)
	want := []string{"agent", "agent liveness", "agent readiness", "agent startup", "bootstrap", "client", "server"}
	for name, file := range cases(t) {
		found := commands(decode(t, render(t, "--values", file)))
		for _, command := range want {
			t.Run(name+"/"+command, func(t *testing.T) {
				argv, ok := found[command]
				if !ok {
					t.Fatal("the chart doesn't run it")
				}
				out, failure := run(t, nil, nodevoy, append(slices.Clone(argv), "--help")...)
				if failure != "" {
					t.Fatalf("nodevoy %q: %s", argv, failure)
				}
				// An unknown subcommand shows the help of the one above it.
				if usage := "nodevoy " + strings.Join(words(argv), " "); !strings.Contains(string(out), usage) {
					t.Errorf("nodevoy %q shows the help of something else than %q:\n%s", argv, usage, out)
				}
			})
		}
	}
}

// A test that can't tell a wrong flag from a right one proves nothing.
func TestFlagsExistCanFail(t *testing.T) {
	nodevoy := nodevoyPath(t)
	for _, argv := range [][]string{{"agent", "--no-such-flag", "--help"}, {"agent", "--listener-port-tcp=70000", "--help"}} {
		if _, failure := run(t, nil, nodevoy, argv...); failure == "" {
			t.Errorf("nodevoy %q is accepted", argv)
		}
	}
}

// The same for Envoy's flags, by the Envoy that is tested.
func TestEnvoyFlagsExist(t *testing.T) {
	envoy := program(t, "envoy", "run `make envoy`, or set NODEVOY_ENVOY",
		os.Getenv("NODEVOY_ENVOY"), "../../.cache/envoy/1.40.0/envoy")
	for name, file := range cases(t) {
		spec := decode(t, render(t, "--values", file)).daemonSet.Spec.Template.Spec
		argv := append(slices.Clone(envoyOf(t, spec).Args), "--version")
		if out, failure := run(t, nil, envoy, argv...); failure != "" || !strings.Contains(string(out), "/1.40.0/") {
			t.Errorf("%s: envoy %q: %s%s", name, argv, out, failure)
		}
	}
	if _, failure := run(t, nil, envoy, "--no-such-flag", "--version"); failure == "" {
		t.Error("envoy accepts any flag")
	}
}

// words are the subcommand in a command line: what comes before the flags, and
// is no argument of a probe.
func words(argv []string) []string {
	end := slices.IndexFunc(argv, func(arg string) bool { return strings.HasPrefix(arg, "-") })
	if end < 0 {
		end = len(argv)
	}
	return argv[:end]
}

// What values.yaml says is the default is that of the binary: there is one truth,
// and the README's table tells it. Flags that the chart has reasons to set
// otherwise are named here.
func TestDefaultsAreTheBinarys(t *testing.T) {
	differs := map[string]string{
		"cleanup-on-exit": "an agent that stops is replaced by a pod that starts anew, or by none",
		"drain-timeout":   "only an agent that cleans up drains",
		"host-dir":        "the run directory belongs to the pod",
		"metrics-address": "it would be a port of the node",
		"netns-dir":       "each is a mount of the node's",
		"node-name":       "the node's",
	}
	help, failure := run(t, nil, nodevoyPath(t), "agent", "--help")
	if failure != "" {
		t.Fatal(failure)
	}
	defaults := map[string]string{}
	line := regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z0-9-]+) .*\(default (?:\[(.*)\]|"(.*)"|(.*))\)$`)
	for _, m := range line.FindAllStringSubmatch(string(help), -1) {
		defaults[m[1]] = m[2] + m[3] + m[4]
	}
	compared := 0
	for _, arg := range commands(decode(t, render(t)))["agent"][1:] {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if _, ok := differs[name]; ok {
			continue
		}
		compared++
		if got, ok := defaults[name]; !ok || got != value {
			t.Errorf("--%s: the chart says %q, the binary %q", name, value, got)
		}
	}
	if compared < 15 {
		t.Errorf("only %d flags were compared", compared)
	}
}
