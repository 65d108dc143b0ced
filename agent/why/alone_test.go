// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/why"
)

// TestAlone is what is said where no agent answers.
func TestAlone(t *testing.T) {
	one := why.Redirected{Entry: why.Entry{Set: "nodevoy-pods4", Member: "10.244.1.2", There: true, Left: 21 * time.Second}, Where: "the node"}
	two := one
	two.Member, two.Left = "10.244.1.3", 19*time.Second
	elsewhere := one
	elsewhere.Destination = []why.Entry{{Set: "nodevoy-http4", Member: "10.96.0.10:80"}, {Set: "nodevoy-tcp4", Member: "10.96.0.10:80"}}
	for what, c := range map[string]struct {
		known    why.Alone
		verdict  why.Verdict
		sentence string
	}{
		"going on": {
			why.Alone{Redirected: []why.Redirected{one, two}},
			why.Unsure,
			"The agent of this node does not answer. What it left redirects 2 addresses to Envoy, for 21s more; then calls go to kube-proxy.",
		},
		"without Envoy": {
			why.Alone{Redirected: []why.Redirected{one}, EnvoyErr: "connection refused"},
			why.Fails,
			"Calls fail for up to 21s: the agent of this node does not answer, Envoy does not serve, and the kernel still redirects 1 address to it. Then they go to kube-proxy.",
		},
		"not to this": {
			why.Alone{Redirected: []why.Redirected{elsewhere}},
			why.Bypassed,
			"Calls go past Envoy, to kube-proxy: the agent of this node does not answer, and the kernel does not redirect calls to 10.96.0.10:80.",
		},
		"expired": {
			why.Alone{EnvoyErr: "connection refused"},
			why.Bypassed,
			"Calls go past Envoy, to kube-proxy: the agent of this node does not answer, and nothing that it left redirects them any more.",
		},
		"unreadable": {
			why.Alone{Redirected: []why.Redirected{one}, KernelErr: "operation not permitted"},
			why.Unsure,
			"Can't tell: the agent of this node does not answer, and the kernel can't be read.",
		},
	} {
		c.known.Unanswered = "the agent is not running"
		got := why.ExplainAlone(&c.known, why.Question{From: "shop/client", To: "10.96.0.10:80"})
		if got.Verdict != c.verdict || got.Sentence != c.sentence {
			t.Errorf("%s: %s: %s", what, got.Verdict, got.Sentence)
		}
		if got.Chain[0].Name != "agent" || got.Chain[0].State != why.Broken || got.Chain[0].Text != c.known.Unanswered {
			t.Errorf("%s: the first link is %+v", what, got.Chain[0])
		}
	}
}
