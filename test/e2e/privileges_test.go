// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// agentOnly is a program that starts the agent with the capabilities that the
// chart gives it, in its own group and Envoy's.
func agentOnly(capabilities string) []string {
	return []string{"setpriv", "--inh-caps=-all", "--bounding-set=-all," + capabilities, "--groups=" + lab.EnvoyUser, "--"}
}

// TestPrivileges has an agent and an Envoy that have what the chart gives them and
// no more: connections go through Envoy, which is an unprivileged user with the
// capabilities that are named here, and a filter. Both ends of every socket that
// they share work, also after the other's restart.
func TestPrivileges(t *testing.T) {
	for _, c := range []struct {
		variant
		agent string
		envoy string // in hexadecimal, as the kernel prints it
	}{
		{podBridged(), "+net_admin,+net_raw,+sys_admin", "0000000000201000"},
		{hostBridged(), "+net_admin,+net_raw", "0000000000002000"},
		{hostRouted(), "+net_admin,+net_raw", "0000000000002000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newFixture(t, c.variant)
			w.startEnvoy(t)
			for range 2 {
				w.agent = must(w.node.StartAgentBy(agentOnly(c.agent)))(t)
				must(w.agent.WaitRedirected(limit(t), w.client))(t)
				want := map[string]string{
					"Uid": "65532 65532 65532 65532", "Gid": "65532 65532 65532 65532", "Groups": "",
					"CapEff": c.envoy, "CapPrm": c.envoy, "CapAmb": c.envoy, "NoNewPrivs": "1", "Seccomp": "2",
				}
				if diff := cmp.Diff(want, privileges(t, w.envoy.PID(), want)); diff != "" {
					t.Errorf("Envoy's privileges (-want +got):\n%s", diff)
				}
				for _, port := range []string{"80", "8080"} {
					r := call(t, w.client, echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":" + port, Requests: 20})
					if r.Failed > 0 {
						t.Errorf("port %s: %d failed: %v", port, r.Failed, r.Errors)
					}
					w.allThroughEnvoy(t, r)
				}
				// The agent drains Envoy by its admin socket.
				check(t, w.agent.Stop(endLimit))
			}
			if log := w.agent.Output(); strings.Contains(log, "permission denied") {
				t.Errorf("something of Envoy's is not the agent's to use:\n%s", log)
			}
			check(t, w.envoy.Stop(endLimit))
			check(t, w.node.Cleanup(limit(t)))
		})
	}
}

// privileges are the lines of a process's status that have these names.
func privileges(t *testing.T, pid int, names map[string]string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	got := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+):[\t ]*(.*)$`).FindAllStringSubmatch(string(text), -1) {
		if _, ok := names[m[1]]; ok {
			got[m[1]] = strings.Join(strings.Fields(m[2]), " ")
		}
	}
	return got
}
