// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// soon is how quickly a change in the API server is to have its effect on
// traffic. It is live in tenths of a second; a loaded machine takes longer.
const soon = 5 * time.Second

// TestFollow changes one thing after another in the API server, and sees the
// kernel's sets and Envoy follow, by what becomes of a pod's calls.
func TestFollow(t *testing.T) {
	w := newFixture(t)
	w.start(t)
	targets := []string{web4 + ":80", "[" + web6 + "]:80"}

	// Not enrolled: the agent is up, and kube-proxy has the calls.
	until(t, 30*time.Second, "Envoy to be served", w.envoyServed)
	check(t, w.client.NotRedirected(t.Context()))

	w.setNamespace(t, "enabled")
	took := until(t, soon, "redirection after the label", w.client.Redirected)
	t.Logf("label → redirected: %v", took.Round(time.Millisecond))
	for _, target := range targets {
		until(t, soon, "calls through Envoy", w.answers(target, true, w.web...))
	}

	third := w.addBackend(t, "web-3")
	w.setWeb(t, append(w.web, third)...)
	took = until(t, soon, "the new backend", w.answers(targets[0], true, w.web[0], w.web[1], third))
	t.Logf("endpoint added → answers: %v", took.Round(time.Millisecond))

	w.setWeb(t, w.web[1])
	until(t, soon, "the removed backends to be left alone", w.answers(targets[0], true, w.web[1]))

	// Deleted and made again with the same addresses, which Envoy has asked for
	// before and will not ask for again.
	w.lab.Objects().DeleteService("shop", "web")
	w.publish(t)
	until(t, soon, "calls to the deleted Service to fail", w.refused)
	w.setWeb(t, w.web...)
	for _, target := range targets {
		until(t, soon, "the Service made again", w.answers(target, true, w.web...))
	}

	w.setNamespace(t, "")
	took = until(t, soon, "the end of redirection after the label", w.client.NotRedirected)
	t.Logf("label removed → not redirected: %v", took.Round(time.Millisecond))
	until(t, soon, "calls past Envoy", w.past)
}

// TestPods sees pods of the node come and go: enrolled by their own label,
// redirected as soon as they have an address, and not once they are deleted.
func TestPods(t *testing.T) {
	w := newFixture(t)
	w.start(t)
	label := func(value string) map[string]string { return map[string]string{"nodevoy.io/redirect": value} }
	enrolled := must(w.node.AddPod("shop", "enrolled", label("enabled")))(t)
	w.publish(t)
	until(t, 30*time.Second, "the labelled pod to be redirected", enrolled.Redirected)
	check(t, w.client.NotRedirected(t.Context()))

	optedOut := must(w.node.AddPod("shop", "opted-out", label("disabled")))(t)
	w.setNamespace(t, "enabled")
	until(t, soon, "the namespace's pods to be redirected", w.client.Redirected)
	check(t, optedOut.NotRedirected(t.Context()))

	check(t, enrolled.Remove())
	w.publish(t)
	until(t, soon, "the deleted pod to be forgotten", enrolled.NotRedirected)
	check(t, w.client.Redirected(t.Context()))
}

// envoyServed returns an error until Envoy has its listeners.
func (w *fixture) envoyServed(ctx context.Context) error {
	names, err := w.envoy.Listeners(ctx)
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("Envoy has no listener")
	}
	return err
}

// past returns an error unless calls reach a backend without Envoy. One
// connection is one backend's then, so only the way is asked about.
func (w *fixture) past(ctx context.Context) error {
	var err error
	for _, pod := range w.web {
		if err = w.answers(web4+":80", false, pod)(ctx); err == nil {
			return nil
		}
	}
	return err
}

// refused returns an error while a call to shop/web is still answered.
func (w *fixture) refused(ctx context.Context) error {
	result, err := w.client.Call(ctx, echo.Spec{
		Protocol: echo.HTTP1, Target: web4 + ":80", Requests: 1, Fresh: true, Timeout: time.Second,
	})
	if err == nil && result.Failed == 0 {
		err = fmt.Errorf("answered by %v", result.Pods)
		return err
	}
	return nil
}
