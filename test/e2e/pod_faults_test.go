// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
)

// goneLimit is within what time nothing is to be left of a pod that was removed:
// what Envoy's drain time is, and some for the kernel, which lets a namespace's
// last sockets expire and has one worker for all namespaces that end.
const goneLimit = 2 * time.Minute

// untilNothingOfOthers waits until Envoy has the listeners of the enrolled pods
// that live and no other, and nobody holds the namespace of a pod that doesn't.
func (w *fixture) untilNothingOfOthers(t *testing.T, alive ...*lab.Pod) {
	t.Helper()
	check(t, waitFor(t, goneLimit, func() error {
		names, err := w.envoy.Listeners(t.Context())
		if err != nil {
			return err
		}
		of := map[string]int{}
		for _, name := range names {
			parts := strings.Split(name, "/")
			of[parts[len(parts)-1]]++
		}
		for _, pod := range append([]*lab.Pod{w.client, w.web[0]}, alive...) {
			if of[pod.UID] != 3 {
				return fmt.Errorf("pod %s has %d listeners, want 3: %q", pod.Name, of[pod.UID], names)
			}
			delete(of, pod.UID)
		}
		if len(of) > 0 {
			return fmt.Errorf("there are listeners of other pods: %v", of)
		}
		return w.Lingering()
	}))
}

// TestEnvoyReturnsToEveryPod restarts Envoy, by SIGKILL and by SIGTERM, and wants
// its sockets in every pod again, and calls meanwhile past it.
func TestEnvoyReturnsToEveryPod(t *testing.T) {
	each(t, []variant{podBridged()}, func(t *testing.T, w *fixture) {
		pods := []*lab.Pod{w.client}
		for i := range 9 {
			pods = append(pods, must(w.node.AddPod("shop", fmt.Sprintf("pod-%d", i), nil))(t))
		}
		check(t, w.Publish(limit(t)))
		w.start(t)
		for round := range 2 {
			for _, pod := range pods {
				must(w.agent.WaitRedirected(limit(t), pod))(t)
				for _, family := range []string{"127.0.0.1", "[::1]"} {
					sockets := must(pod.Run(limit(t), "ss", "-Hltn"))(t)
					if n := strings.Count(sockets, family+":2372"); n < 3 {
						t.Errorf("round %d: pod %s has %d sockets of Envoy on %s, want 3:\n%s", round, pod.Name, n, family, sockets)
					}
				}
			}
			r := call(t, pods[9], w.probe())
			if r.Relayed != 1 {
				t.Errorf("round %d: a call of the last pod: %+v", round, r)
			}
			if round == 0 {
				check(t, w.envoy.Kill())
			} else {
				check(t, w.envoy.Stop(endLimit))
			}
			for _, pod := range pods {
				check(t, waitFor(t, time.Second, func() error { return pod.NotRedirected(t.Context()) }))
				if r := call(t, pod, w.probe()); r.Failed > 0 || r.Relayed > 0 {
					t.Errorf("without Envoy, a call of %s: %+v", pod.Name, r)
				}
			}
			w.startEnvoy(t)
		}
		for _, pod := range pods {
			must(w.agent.WaitRedirected(limit(t), pod))(t)
		}
	})
}

// TestNamespacesOutOfReach has agents that can't see the pods' network
// namespaces, or may not enter them: with pod mode they say so and end; with
// auto they take host mode and say why.
func TestNamespacesOutOfReach(t *testing.T) {
	const nowhere = "/nowhere/netns"
	without := []string{"setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"}
	for _, c := range []struct {
		what  string
		by    []string
		flags []string
		// why is in what the agent says.
		why string
	}{
		{"the directory is not there", nil, []string{"--netns-dir", nowhere}, nowhere},
		{"namespaces may not be entered", without, nil, "SYS_ADMIN"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Run("pod", func(t *testing.T) {
				w := newFixture(t, podBridged())
				w.startEnvoy(t)
				agent := must(w.node.StartAgentBy(c.by, c.flags...))(t)
				select {
				case <-agent.Ended():
				case <-time.After(endLimit):
					t.Fatalf("the agent goes on:\n%s", agent.Output())
				}
				if !strings.Contains(agent.Output(), c.why) {
					t.Errorf("the agent doesn't name %q:\n%s", c.why, agent.Output())
				}
				t.Log(lastLine(agent.Output()))
				check(t, w.client.NotRedirected(t.Context()))
			})
			t.Run("auto", func(t *testing.T) {
				v := hostBridged()
				v.Mode = lab.Auto
				w := newFixture(t, v)
				w.startEnvoy(t)
				w.agent = must(w.node.StartAgentBy(c.by, c.flags...))(t)
				must(w.agent.WaitRedirected(limit(t), w.client))(t)
				s := must(w.node.Status(limit(t)))(t)
				if s.Redirect.Mode != string(lab.Host) {
					t.Errorf("the agent has chosen mode %q, want host", s.Redirect.Mode)
				}
				if why := must(w.node.StatusText(limit(t)))(t); !strings.Contains(why, c.why) {
					t.Errorf("the status doesn't name %q:\n%s", c.why, why)
				}
				r := call(t, w.client, w.probe())
				w.allThroughEnvoy(t, r)
			})
		})
	}
}

// lastLine is the last line of a log.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
