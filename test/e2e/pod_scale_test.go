// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
)

// manyPods is how many pods of a node are enrolled beside those of every fixture.
const manyPods = 100

// TestManyPods enrols 100 pods of a node, in a cluster of 10,000 Services, and
// logs what they cost: it proves that all are redirected, and stay so, and that
// a change of one Service reaches all.
func TestManyPods(t *testing.T) {
	each(t, []variant{podBridged()}, func(t *testing.T, w *fixture) {
		writeServices(t, manyServices-1, 1)
		w.start(t)
		w.untilSettled(t)
		alone := must(w.envoy.RSS())(t)
		check(t, w.agent.Stop(endLimit))
		pods := []*lab.Pod{w.client, w.web[0]}
		for i := range manyPods {
			pods = append(pods, must(w.node.AddPod("shop", fmt.Sprintf("pod-%d", i), nil))(t))
		}
		check(t, w.PublishObjects())

		w.startAgent(t)
		for _, pod := range pods {
			must(w.agent.WaitRedirected(limit(t), pod))(t)
		}
		enrolled := time.Now()
		status := must(w.node.Status(limit(t)))(t)
		if status.ObjectsRead.IsZero() {
			t.Fatal("the status doesn't say when the objects were read")
		}
		w.untilSettled(t)
		envoy, agent := must(w.envoy.RSS())(t), must(w.agent.RSS())(t)
		t.Logf("%d pods enrolled %s after the objects were read; Envoy has %d MiB more, %d MiB; the agent has %d MiB",
			len(pods), enrolled.Sub(status.ObjectsRead).Round(time.Millisecond), (envoy-alone)>>20, envoy>>20, agent>>20)
		if names := must(w.envoy.Listeners(limit(t)))(t); len(names) != 3*len(pods) {
			t.Errorf("Envoy has %d listeners, want 3 for each of %d pods", len(names), len(pods))
		}
		if held := must(w.agent.Held())(t); held.Namespaces < len(pods) || held.Namespaces > 3*len(pods) {
			t.Errorf("the agent holds %d namespaces for %d pods", held.Namespaces, len(pods))
		}
		w.checkCaller(t, pods[len(pods)-1])
		w.checkServiceChange(t, pods)
		rules := len(must(w.client.Netns().OwnRules(limit(t)))(t))
		for _, pod := range pods[len(pods)-3:] {
			if n := len(must(pod.Netns().OwnRules(limit(t)))(t)); n != rules {
				t.Errorf("pod %s has %d rules, the first has %d", pod.Name, n, rules)
			}
		}
	})
}

// checkServiceChange makes a Service, and deletes it, and logs how long it took
// until every pod's kernel knew.
func (w *fixture) checkServiceChange(t *testing.T, pods []*lab.Pod) {
	t.Helper()
	extra := addrs("10.96.3.3", "fd00:10:96::303")
	everywhere := func(want bool) {
		t.Helper()
		start := time.Now()
		check(t, w.PublishObjects())
		check(t, waitFor(t, 30*time.Second, func() error {
			for _, pod := range pods {
				for i, set := range []string{"nodevoy-http4", "nodevoy-http6"} {
					if pod.Netns().Has(set, extra[i], 80) != want {
						return fmt.Errorf("%s of pod %s has %s: %v, want %v", set, pod.Name, extra[i], !want, want)
					}
				}
			}
			return nil
		}))
		t.Logf("the Service is there, %v: known in %d pods after %s", want, len(pods), time.Since(start).Round(time.Millisecond))
	}
	for range 2 {
		w.Objects().SetService(lab.Service{Namespace: "shop", Name: "extra", IPs: extra, Ports: lab.EchoPorts(), Pods: w.web})
		everywhere(true)
		w.Objects().DeleteService("shop", "extra")
		everywhere(false)
	}
}
