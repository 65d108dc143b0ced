// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/why"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/server"
)

// newExplainer makes one of a node with the pod shop/client and the Service shop/web.
func newExplainer(t *testing.T) *explainer {
	t.Helper()
	cfg := DefaultConfig()
	cfg.NodeName, cfg.Redirect.Mode = "node-a", plan.HostMode
	node := model.Build(model.Inputs{
		NodeName:   "node-a",
		Namespaces: []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{model.RedirectLabel: model.RedirectEnabled}}}},
		Pods: []*corev1.Pod{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "client"}, Spec: corev1.PodSpec{NodeName: "node-a"},
			Status: corev1.PodStatus{PodIP: "10.244.1.2"},
		}},
		Services: []*corev1.Service{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
			Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.10", Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		}},
	}, cfg.Model)
	state := &atomic.Pointer[State]{}
	state.Store(&State{At: time.Now(), Phase: PhaseRedirecting, Mode: plan.HostMode, Node: node, Plan: plan.Compile(node, cfg.Redirect)})
	return &explainer{
		cfg: cfg.Resolved(), state: state, stuck: func() string { return "" }, health: func() []kinds.Health { return nil },
		standing: func(xds.Kind, string) server.Standing { return server.Standing{} }, flows: flow.NewLog(10),
	}
}

// TestWhyIsAsked is what is answered to requests, good and bad.
func TestWhyIsAsked(t *testing.T) {
	x := newExplainer(t)
	x.flows.Add(flow.Flow{Source: flow.Peer{Namespace: "shop", Pod: "client"}, Frontend: netip.MustParseAddrPort("10.96.0.10:80")})
	const fails = "Calls of shop/client to shop/web:80 (10.96.0.10:80) fail: it has no endpoints."
	for query, want := range map[string]struct {
		is   error
		text string
	}{
		"from=shop/client&to=web:80": {nil, fails},
		"flow=1":                     {nil, fails},
		"flow=2":                     {debug.ErrNotFound, "flow 2: not found"},
		"flow=x":                     {debug.ErrInvalid, `flow "x" is no number`},
		"from=shop/client":           {debug.ErrInvalid, "both ends of the call are needed"},
		"from=shop/client&to=web%1b%5b:80%0a/a/b/c": {debug.ErrInvalid, `not understood`},
		"from=shop/client&to=web%07:80":             {nil, `there is no Service shop/web\a`},
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := x.answer(t.Context(), values)
		text := ""
		if err != nil {
			text = err.Error()
		} else {
			text = got.(why.Answer).Sentence
		}
		if !errors.Is(err, want.is) || !strings.Contains(text, want.text) || strings.ContainsAny(text, "\x1b\x07") {
			t.Errorf("%s: %q, want %q", query, text, want.text)
		}
	}
}

// TestWhyBeforeObjectsAreRead wants an answer also of an agent that knows nothing.
func TestWhyBeforeObjectsAreRead(t *testing.T) {
	x := newExplainer(t)
	for _, state := range []*State{nil, {At: time.Now(), Phase: PhaseStarting}} {
		x.state.Store(state)
		answer, err := x.ask(t.Context(), why.Question{From: "shop/client", To: "web:80"}, "", true)
		if err != nil || answer.Verdict != why.Unsure {
			t.Errorf("%v: %+v", err, answer)
		}
	}
}
