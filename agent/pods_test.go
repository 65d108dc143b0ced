// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/xds/server"
)

// clientUID is that of the pod in oneService, which has none of its own.
const clientUID = "demo/client"

// fakePods is what becomes of the fixture's pod, in pod mode.
type fakePods struct {
	*fixture
	// path is where the pod's namespace is; empty while it is missing. What the
	// next Relocate finds is in soon.
	path, soon string
	// fault is why the pod can't be redirected.
	fault string
	looks int
	// leaves is set when the pod is to be released.
	leaves bool
}

func (p *fakePods) Targets() []model.PodTarget {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.path == "" {
		return nil
	}
	return []model.PodTarget{{Namespace: "demo", Pod: "client", UID: clientUID, Netns: p.path, V4: true}}
}

func (p *fakePods) Relocate(context.Context, *plan.Plan) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks++
	changed := p.path != p.soon
	p.path = p.soon
	return changed
}

func (p *fakePods) SearchDue() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.path == ""
}

func (p *fakePods) Release() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := p.leaves
	if changed {
		p.leaves, p.path, p.soon = false, "", ""
	}
	return changed
}

func (p *fakePods) Pending() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.path != "" && (p.fault != "" || !p.engaged)
}

func (p *fakePods) Report() map[string]pods.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := pods.State{Netns: p.path, Reason: p.fault}
	if p.path == "" {
		s.Reason = "not found"
	}
	s.Redirecting = p.engaged && s.Reason == ""
	return map[string]pods.State{clientUID: s}
}

// becomes sets what the pod is like from now on.
func (p *fakePods) becomes(soon, fault string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.soon, p.fault, p.applyErr = soon, fault, nil
	if fault != "" {
		p.applyErr = fmt.Errorf("%w: %s", pods.ErrPartial, fault)
	}
}

// counted says how often each thing was done.
func counted(diary []string) map[string]int {
	n := map[string]int{}
	for _, did := range diary {
		n[did]++
	}
	return n
}

// withPodFixture is withFixture in pod mode, with a pod whose namespace is there.
func withPodFixture(t *testing.T, f func(t *testing.T, p *fakePods)) {
	t.Helper()
	var p *fakePods
	prepare := func(b *fixture) {
		p = &fakePods{fixture: b, path: "/run/netns/a", soon: "/run/netns/a"}
		b.loop.pods = p
		b.loop.cfg.Redirect.Mode = plan.PodMode
		b.loop.cfg = b.loop.cfg.Resolved()
	}
	withPreparedFixture(t, prepare, func(t *testing.T, _ *fixture) { f(t, p) })
}

// TestPodThatAppearsIsRedirected: a pod whose namespace is found after its IP is
// known is told to Envoy, and then redirected, within a second.
func TestPodThatAppearsIsRedirected(t *testing.T) {
	withPodFixture(t, func(t *testing.T, p *fakePods) {
		p.mu.Lock()
		p.path, p.soon = "", ""
		p.mu.Unlock()
		p.redirecting(t)
		if got := p.targets; len(got) > 0 {
			t.Fatalf("a pod that is missing has targets %v", got)
		}
		p.becomes("/run/netns/a", "")
		pass(time.Second)
		if diff := cmp.Diff([]string{"publish", "apply"}, p.took()); diff != "" {
			t.Errorf("once it is found (-want +got):\n%s", diff)
		}
		want := []model.PodTarget{{Namespace: "demo", Pod: "client", UID: clientUID, Netns: "/run/netns/a", V4: true}}
		if diff := cmp.Diff(want, p.targets); diff != "" {
			t.Errorf("published targets (-want +got):\n%s", diff)
		}
		v := p.state().shown(false)
		if pod := v.Pods[0]; !pod.Redirected || pod.Netns != "/run/netns/a" || v.Redirect.Mode != "pod" {
			t.Errorf("status shows %+v, mode %q", pod, v.Redirect.Mode)
		}
	})
}

// TestPodsAreLookedForWhileOneLacks: often while one is missing, else now and then.
func TestPodsAreLookedForWhileOneLacks(t *testing.T) {
	withPodFixture(t, func(t *testing.T, p *fakePods) {
		p.redirecting(t)
		looks := func() int {
			p.mu.Lock()
			defer p.mu.Unlock()
			n := p.looks
			p.looks = 0
			return n
		}
		looks()
		pass(10 * time.Second)
		if n := looks(); n < 4 || n > 6 {
			t.Errorf("%d looks in 10 s while nothing is missing, want 5", n)
		}
		p.becomes("", "")
		pass(2 * searchInterval)
		looks()
		pass(10 * time.Second)
		if n := looks(); n < 45 {
			t.Errorf("%d looks in 10 s for a missing pod, want 50", n)
		}
	})
}

// TestReleasedPodLosesItsListeners: a pod that is to have Envoy's ports back is soon
// published without.
func TestReleasedPodLosesItsListeners(t *testing.T) {
	withPodFixture(t, func(t *testing.T, p *fakePods) {
		p.redirecting(t)
		pass(searchInterval + locateInterval)
		p.took()
		p.mu.Lock()
		p.leaves = true
		p.mu.Unlock()
		pass(2 * locateInterval)
		if n := counted(p.took())["publish"]; n != 1 || len(p.targets) > 0 {
			t.Errorf("published %d times, at last for %v", n, p.targets)
		}
	})
}

// TestBrokenPodHoldsUpNothing: a pod that can't be redirected is shown, told once
// and tried again, and the node is ready and goes on as if it weren't there.
func TestBrokenPodHoldsUpNothing(t *testing.T) {
	withPodFixture(t, func(t *testing.T, p *fakePods) {
		p.becomes("/run/netns/a", "foreign rules")
		p.redirecting(t)
		pass(10 * time.Second)
		if n := counted(p.took())["apply"]; n < 9 || n > 11 {
			t.Errorf("tried %d times in 10 s, want 10", n)
		}
		s := p.state()
		if s.ready(time.Now(), time.Minute) != "" || s.ApplyErr != "" || !s.PendingSince.IsZero() || s.Applied.IsZero() {
			t.Errorf("state beside a broken pod: %+v", s)
		}
		if pod := s.shown(false).Pods[0]; pod.Redirected || pod.NotRedirected != "foreign rules" {
			t.Errorf("status shows %+v", pod)
		}
		if n := p.logs.FilterMessage("pod not redirected").Len(); n != 1 {
			t.Errorf("told %d times, want once", n)
		}
		if n := testutil.ToFloat64(p.loop.metrics.failures.WithLabelValues("apply")); n != 0 {
			t.Errorf("%v failures are counted, want 0", n)
		}
		if lost := gaugeOf(t, p.loop.state, "nodevoy_enrolled_pods", "false"); lost != 1 {
			t.Errorf("%v pods not redirected are counted, want 1", lost)
		}
		p.mu.Lock()
		p.drift = []apply.Drift{{Kind: apply.DriftJump, Name: "demo/other"}}
		p.mu.Unlock()
		pass(2 * driftInterval)
		if n := p.state().DriftRepaired; n != 1 {
			t.Errorf("drift in another pod was mended %d times", n)
		}
		p.becomes("/run/netns/a", "")
		pass(2 * time.Second)
		if pod := p.state().shown(false).Pods[0]; !pod.Redirected || pod.NotRedirected != "" {
			t.Errorf("once it is mended status shows %+v", pod)
		}
		p.took()
		pass(5 * time.Second)
		if n := counted(p.took())["apply"]; n > 0 {
			t.Errorf("applied %d times with nothing to do", n)
		}
	})
}

// TestRefusedListener: a pod in which Envoy can't listen is blocked, and no other.
// The server sends the listener again by itself.
func TestRefusedListener(t *testing.T) {
	withPodFixture(t, func(t *testing.T, p *fakePods) {
		p.redirecting(t)
		p.becomes("/run/netns/a", "no answer")
		st := p.loop.envoy.Status()
		st.Refused = server.Refused{Pods: map[string]string{clientUID: "cannot bind", "other": "what?"}}
		p.set(st)
		pass(time.Minute)
		if n := counted(p.took())["publish"]; n > 0 {
			t.Errorf("published %d times though nothing changed", n)
		}
		if why := p.planned().Pods[0].Blocked; why != "cannot bind" {
			t.Errorf("blocked because %q", why)
		}
		st.Refused = server.Refused{}
		p.set(st)
		pass(time.Second)
		if why := p.planned().Pods[0].Blocked; why != "" {
			t.Errorf("once it listens, blocked because %q", why)
		}
	})
}

// TestEndingPodIsNoNews: pods come and go, and lose their namespaces before their
// objects go.
func TestEndingPodIsNoNews(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	r := &reporter{log: zap.New(core)}
	desired := &plan.Plan{Pods: []plan.PodPlan{{Namespace: "demo", Pod: "job", UID: "1"}}}
	ending := &plan.Plan{Pods: []plan.PodPlan{{Namespace: "demo", Pod: "job", UID: "1", Terminating: true}}}
	missing := map[string]pods.State{"1": {Reason: "no network namespace"}}
	r.notePods(ending, missing)
	r.notePods(desired, map[string]pods.State{"1": {Redirecting: true, Netns: "/run/netns/a"}})
	r.notePods(ending, missing)
	if logs.Len() > 0 {
		t.Errorf("told of a pod that ends: %v", logs.All())
	}
	r.notePods(desired, map[string]pods.State{"1": {Reason: "not found"}})
	if logs.Len() != 1 {
		t.Errorf("%d lines about a pod that goes on, want 1", logs.Len())
	}
}

// TestRefusedInEndedPodIsNoNews: Envoy can't open a listener in a network namespace
// that has just gone. What it refuses of pods that go on is an error all the same.
func TestRefusedInEndedPodIsNoNews(t *testing.T) {
	const head = "Error adding/updating listener(s) "
	pod := func(name string, terminating bool) plan.PodPlan {
		return plan.PodPlan{Namespace: "demo", Pod: name, UID: "uid-" + name, Terminating: terminating}
	}
	desired := &plan.Plan{Mode: plan.PodMode, Pods: []plan.PodPlan{pod("lives", false), pod("ends", true)}}
	lives, ends, gone := "http/demo/lives/uid-lives", "http/demo/ends/uid-ends", "tcp/demo/gone/uid-gone"
	for _, test := range []struct {
		name, kind, detail string
		names              []string
		desired            *plan.Plan
		want               zapcore.Level
	}{
		{"pod that is gone", "listener", head + gone + ": no such file", []string{gone}, desired, zap.DebugLevel},
		{"pod that ends", "listener", head + ends + ": no such file\n" + gone + ": no such file", []string{ends, gone, lives}, desired, zap.DebugLevel},
		{"pod that lives", "listener", head + lives + ": port in use", []string{lives}, desired, zap.ErrorLevel},
		{"one of each", "listener", head + gone + ": no such file\n" + lives + ": port in use", []string{gone, lives}, desired, zap.ErrorLevel},
		{"who knows which", "listener", "out of memory", []string{gone, lives}, desired, zap.ErrorLevel},
		{"route", "route", "no such cluster", []string{"http"}, desired, zap.ErrorLevel},
		{"host mode", "listener", head + "http-v4: cannot bind", []string{"http-v4"}, &plan.Plan{Mode: plan.HostMode}, zap.ErrorLevel},
		{"before anything was read", "listener", head + gone + ": no such file", []string{gone}, nil, zap.ErrorLevel},
	} {
		t.Run(test.name, func(t *testing.T) {
			core, logs := observer.New(zap.DebugLevel)
			r := &reporter{log: zap.New(core), metrics: newMetrics(prometheus.NewRegistry(), &atomic.Pointer[State]{})}
			r.noteNacks(server.Status{NackCount: 1, Nacks: []server.Nack{{Type: test.kind, Names: test.names, Detail: test.detail}}}, test.desired)
			if all := logs.All(); len(all) != 1 || all[0].Level != test.want {
				t.Errorf("logged %v, want one line of level %s", all, test.want)
			}
			if n := testutil.ToFloat64(r.metrics.nacks.WithLabelValues(test.kind)); n != 1 {
				t.Errorf("counted %v, want 1", n)
			}
		})
	}
}

// TestOldEnvoyIsRefused: it would crash when a pod ends.
func TestOldEnvoyIsRefused(t *testing.T) {
	withPodFixture(t, func(t *testing.T, p *fakePods) {
		p.change()
		st := server.Status{Connected: true, Since: time.Now(), ListenersAcked: true, Settled: true, Version: server.Version{1, 39, 2}}
		p.set(st)
		pass(5 * time.Second)
		if got := p.took(); slices.Contains(got, "apply") {
			t.Errorf("with an old Envoy the loop did %q", got)
		}
		if s := p.state(); !strings.Contains(s.ready(time.Now(), time.Minute), "Envoy 1.39.2 is older than 1.40.0") {
			t.Errorf("not ready because %q", s.ready(time.Now(), time.Minute))
		}
		st.Version = server.Version{1, 40, 0}
		p.set(st)
		pass(2 * time.Second)
		if s := p.state(); s.Phase != PhaseRedirecting {
			t.Errorf("phase %q with an Envoy that will do", s.Phase)
		}
	})
}

// TestEnvoyGoneAndBack: all pods are disengaged at once, and redirected again.
func TestEnvoyGoneAndBack(t *testing.T) {
	withPodFixture(t, func(t *testing.T, p *fakePods) {
		p.redirecting(t)
		p.loop.envoyGone()
		p.set(server.Status{})
		if pod := p.state().shown(false).Pods[0]; pod.Redirected || pod.NotRedirected == "" {
			t.Errorf("without an Envoy status shows %+v", pod)
		}
		p.connect()
		pass(2 * time.Second)
		if pod := p.state().shown(false).Pods[0]; !pod.Redirected {
			t.Errorf("with an Envoy status shows %+v", pod)
		}
	})
}

// TestDeafPodsEndRedirection: proof that Envoy works is asked for in pods, and
// several tries without it end redirection.
func TestDeafPodsEndRedirection(t *testing.T) {
	asked := 0
	prober := newProber(askPods(func(ctx context.Context) error {
		asked++
		if _, ok := ctx.Deadline(); !ok {
			t.Error("a pod may be asked for ever")
		}
		return errors.New("deaf")
	}))
	if err := prober.try(t.Context()); err == nil || asked != 1 {
		t.Errorf("asked %d times, error %v", asked, err)
	}
}

// TestStatusHasNoNulls: lists are lists, also where there is nothing to list.
func TestStatusHasNoNulls(t *testing.T) {
	withPodFixture(t, func(t *testing.T, p *fakePods) {
		for _, s := range []*State{nil, {}, p.state()} {
			text, err := json.Marshal(s.shown(true))
			if err != nil || strings.Contains(string(text), "null") {
				t.Errorf("status is %s, error %v", text, err)
			}
		}
		p.redirecting(t)
		text, err := json.Marshal(p.state().shown(true))
		if err != nil || strings.Contains(string(text), "null") {
			t.Errorf("status is %s, error %v", text, err)
		}
	})
}
