// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

const (
	// shortDrain is how long Envoy lets connections of a listener go on that was
	// removed; heldFor is longer.
	shortDrain, heldFor = 2 * time.Second, 6 * time.Second
	// releaseLimit is within what time Envoy's ports in a pod are to be free.
	releaseLimit = 10 * time.Second
)

// TestPortsOfPods is about the ports that Envoy listens on in a pod, which are the
// pod's own: a pod that uses one is left alone for good, and a pod that is enrolled no
// more has them back as soon as its redirected connections have ended.
func TestPortsOfPods(t *testing.T) {
	each(t, []variant{podBridged()}, func(t *testing.T, w *fixture) {
		w.startAgent(t)
		w.envoy = must(w.node.StartEnvoyWith(limit(t), lab.EnvoyOptions{
			Flags: []string{"--concurrency", "1", "--drain-time-s", fmt.Sprint(shortDrain.Seconds())},
		}))(t)
		must(w.agent.WaitRedirected(limit(t), w.client))(t)
		add := func(t *testing.T, spec lab.PodSpec) *lab.Pod {
			t.Helper()
			spec.Namespace = "shop"
			return must(w.node.Add(spec))(t)
		}
		t.Run("of a pod that is let go", func(t *testing.T) {
			testPortsAreReturned(t, w, add(t, lab.PodSpec{Name: "idle"}), add(t, lab.PodSpec{Name: "busy"}))
		})
		t.Run("of a pod that declares one", func(t *testing.T) {
			port := plan.DefaultConfig().Ports.HTTP
			pod := add(t, lab.PodSpec{Name: "declared", Ports: []int32{80, int32(port)}})
			check(t, w.PublishObjects())
			w.checkLeftAlone(t, pod, fmt.Sprint(port))
			check(t, w.portsFree(pod))
		})
		t.Run("of a pod that listens on one", func(t *testing.T) { testPortIsTaken(t, w, add(t, lab.PodSpec{Name: "taker"})) })
	})
}

// testPortsAreReturned lets two pods go, of which one has a connection.
func testPortsAreReturned(t *testing.T, w *fixture, idle, busy *lab.Pod) {
	for _, pod := range []*lab.Pod{idle, busy} {
		w.checkAppears(t, pod)
	}
	kept := must(busy.Load(echo.Spec{Protocol: echo.TCP, Target: web4 + ":7000", Rate: 50, Timeout: 2 * time.Second}))(t)
	traffic{"kept": kept}.untilAnswered(t)
	for _, pod := range []*lab.Pod{idle, busy} {
		w.Objects().SetPodLabels(pod, map[string]string{"nodevoy.io/redirect": "disabled"})
	}
	check(t, w.PublishObjects())
	began := time.Now()
	check(t, waitFor(t, releaseLimit, func() error { return w.portsFree(idle) }))
	t.Logf("free after %s", time.Since(began))
	if own := must(idle.Netns().Own(limit(t)))(t); len(own) > 0 {
		t.Errorf("in the pod that was let go there is %q", own)
	}
	w.untilPodLine(t, busy, "connections it has go on")
	// Nor does the next agent take the listeners away, which finds the pod like this.
	check(t, w.agent.Stop(endLimit))
	w.startAgent(t)
	must(w.agent.WaitRedirected(limit(t), w.client))(t)
	w.untilPodLine(t, busy, "connections it has go on")
	began = time.Now()
	// As long as it would take Envoy to end the connection, had it lost the listener.
	check(t, waitFor(t, 2*heldFor, func() error {
		if err := w.portsFree(busy); err == nil {
			t.Error("the ports are free while there is a connection")
		}
		if d := time.Since(began); d < heldFor {
			return fmt.Errorf("only %s", d)
		}
		return nil
	}))
	if r := stop(t, "one connection", kept); r.Relayed != r.Requests {
		t.Errorf("%d of %d requests on one connection left Envoy", r.Requests-r.Relayed, r.Requests)
	}
	began = time.Now()
	check(t, waitFor(t, releaseLimit, func() error { return w.portsFree(busy) }))
	t.Logf("free %s after the connection", time.Since(began))
	// Both are as new.
	for _, pod := range []*lab.Pod{idle, busy} {
		w.Objects().SetPodLabels(pod, nil)
		w.checkAppears(t, pod)
	}
}

// testPortIsTaken has an application listen on a port of Envoy's that it doesn't
// declare, and restart.
func testPortIsTaken(t *testing.T, w *fixture, pod *lab.Pod) {
	at := fmt.Sprintf(":%d", plan.DefaultConfig().Ports.HTTP)
	app := must(pod.Netns().Listen(at))(t)
	t.Cleanup(func() { _ = app.Close() })
	check(t, w.PublishObjects())
	w.checkLeftAlone(t, pod, strings.TrimPrefix(at, ":"), "listens")
	// Neither has Envoy its other ports, nor does it take this one while the
	// application is down: longer than it is until Envoy is asked again.
	check(t, waitFor(t, releaseLimit, func() error { return w.portsFree(pod, at) }))
	check(t, app.Close())
	until := time.Now().Add(heldFor)
	check(t, waitFor(t, 2*heldFor, func() error {
		if err := w.portsFree(pod); err != nil {
			t.Error(err)
		}
		if time.Now().Before(until) {
			return fmt.Errorf("not %s yet", until)
		}
		return nil
	}))
	w.checkLeftAlone(t, pod, strings.TrimPrefix(at, ":"), "listens")
	check(t, w.client.Redirected(t.Context()))
}

// portsFree wants each port of Envoy's, but those the pod's application has, to be
// free for an application of the pod.
func (w *fixture) portsFree(pod *lab.Pod, but ...string) error {
	for _, port := range plan.DefaultConfig().Ports.All() {
		at := fmt.Sprintf(":%d", port)
		if len(but) > 0 && but[0] == at {
			continue
		}
		l, err := pod.Netns().Listen(at)
		if err != nil {
			return fmt.Errorf("pod %s: %w", pod.Name, err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}
