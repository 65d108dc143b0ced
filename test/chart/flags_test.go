// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// commands are the command lines of the binary that a rendered chart has, by
// container and position, with what kubelet would put in for variables.
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
	for _, c := range containers(o) {
		add(c.Name, slices.Concat(c.Command, c.Args)...)
	}
	return found
}

// probes are the commands that kubelet runs in containers, by container and kind.
func probes(o objects) map[string][]string {
	found := map[string][]string{}
	for _, c := range containers(o) {
		for kind, p := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
			if p != nil && p.Exec != nil {
				found[c.Name+" "+kind] = p.Exec.Command
			}
		}
	}
	return found
}

// The binary reads every flag and value before it shows its help, so a flag it
// doesn't have, or a value it can't read, ends in an error instead.
func TestFlagsExist(t *testing.T) {
	nodevoy := nodevoyPath(t)
	want := []string{"agent", "bootstrap", "client", "server"}
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

// Each probe is a program that is there, with words that it knows, and asks in the
// directory that the agent and Envoy have their sockets in.
func TestProbesExist(t *testing.T) {
	program := filepath.Join(filepath.Dir(nodevoyPath(t)), "nodevoy-probe")
	for name, file := range cases(t) {
		o := decode(t, render(t, "--values", file))
		want := map[string][]string{
			"agent startup":   {"nodevoy-probe", "live", "/run/nodevoy"},
			"agent liveness":  {"nodevoy-probe", "live", "/run/nodevoy"},
			"agent readiness": {"nodevoy-probe", "ready", "/run/nodevoy"},
			"envoy liveness":  {"/run/nodevoy/nodevoy-probe", "envoy", "/run/nodevoy"},
		}
		got := probes(o)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: probes (-want +got):\n%s", name, diff)
		}
		commands := commands(o)
		for _, arg := range []string{"--run-dir=/run/nodevoy", "--programs-output=" + filepath.Dir(want["envoy liveness"][0])} {
			if !slices.Contains(commands["bootstrap"], arg) {
				t.Errorf("%s: no %s in %q", name, arg, commands["bootstrap"])
			}
		}
		if !slices.Contains(commands["agent"], "--run-dir=/run/nodevoy") {
			t.Errorf("%s: the agent's sockets are elsewhere: %q", name, commands["agent"])
		}
		for probe, argv := range got {
			// Here is nobody to ask, which is not what it says of wrong words.
			if _, failure := run(t, nil, program, argv[1], t.TempDir()); !strings.Contains(failure, "no such file") {
				t.Errorf("%s: %s: %s", name, probe, failure)
			}
		}
	}
	if _, failure := run(t, nil, program, "well", t.TempDir()); !strings.Contains(failure, "usage") {
		t.Errorf("it takes any word: %s", failure)
	}
}

// A hung Envoy is killed and started again within a minute, and one that waits for
// its agent is not: it answers 16 s after its start.
func TestEnvoyIsRestartedInTime(t *testing.T) {
	for name, file := range cases(t) {
		spec := decode(t, render(t, "--values", file)).daemonSet.Spec.Template.Spec
		p := envoyOf(t, spec).LivenessProbe
		longest := p.PeriodSeconds*p.FailureThreshold + p.TimeoutSeconds + int32(*p.TerminationGracePeriodSeconds)
		if longest > 45 {
			t.Errorf("%s: %d s until it is killed leave too little of a minute", name, longest)
		}
		if shortest := p.InitialDelaySeconds + p.PeriodSeconds*(p.FailureThreshold-1); shortest < 30 {
			t.Errorf("%s: it may be killed %d s after its start", name, shortest)
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
		_, argv := launch(t, envoyOf(t, spec))
		argv = append(argv[1:], "--version")
		if out, failure := run(t, nil, envoy, argv...); failure != "" || !strings.Contains(string(out), "/1.40.0/") {
			t.Errorf("%s: envoy %q: %s%s", name, argv, out, failure)
		}
	}
	if _, failure := run(t, nil, envoy, "--no-such-flag", "--version"); failure == "" {
		t.Error("envoy accepts any flag")
	}
}

// Envoy is started by the launcher that bootstrap copies to where it is mounted,
// with flags that it has and the program that the image has.
func TestLauncherFlagsExist(t *testing.T) {
	launcher := filepath.Join(filepath.Dir(nodevoyPath(t)), "nodevoy-launch")
	for name, file := range cases(t) {
		envoy := envoyOf(t, decode(t, render(t, "--values", file)).daemonSet.Spec.Template.Spec)
		if diff := cmp.Diff([]string{"/run/nodevoy/nodevoy-launch"}, envoy.Command); diff != "" {
			t.Errorf("%s: command (-want +got):\n%s", name, diff)
		}
		flags, argv := launch(t, envoy)
		if argv[0] != "/usr/local/bin/envoy" {
			t.Errorf("%s: it starts %s", name, argv[0])
		}
		// Without a program it shows its usage, once it has read the flags.
		if _, failure := run(t, nil, launcher, flags...); !strings.Contains(failure, "usage") || strings.Contains(failure, "flag provided") || strings.Contains(failure, "invalid value") {
			t.Errorf("%s: %s %q: %s", name, launcher, flags, failure)
		}
	}
	for _, flags := range [][]string{{"--no-such-flag"}, {"--capabilities=SYS_BOOT"}} {
		if _, failure := run(t, nil, launcher, flags...); !strings.Contains(failure, "flag provided") && !strings.Contains(failure, "invalid value") {
			t.Errorf("%q: %s", flags, failure)
		}
	}
}

// launch splits the arguments of the launcher: its own, and the command line that
// it starts.
func launch(t *testing.T, c corev1.Container) (flags, argv []string) {
	t.Helper()
	end := slices.Index(c.Args, "--")
	if end < 0 || end == len(c.Args)-1 {
		t.Fatalf("%q starts nothing", c.Args)
	}
	return c.Args[:end], slices.Clone(c.Args[end+1:])
}

// words are the subcommand in a command line: what comes before the flags.
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
		"cleanup-on-exit": "an agent that stops is replaced by a pod that starts again, or by none",
		"cluster-memory":  "a part of the bound of Envoy's heap",
		"drain-timeout":   "only an agent that cleans up drains",
		"envoy-group":     "Envoy is another user than the agent",
		"host-dir":        "the run directory belongs to the pod",
		"metrics-address": "it would be a port of the node",
		"netns-dir":       "each is a mount of the node's",
		"node-name":       "the node's",
		// A test of its own has the rule.
		"max-connections-per-pod": "it follows the bound of Envoy's heap",
		// The binary knows no release.
		"pod-opt-in-namespaces": "the release's own, for helm test",
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
