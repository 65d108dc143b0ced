// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/unixsocket"
	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/openapitest"
)

// checkEndpoint wants the debug endpoint of an agent that redirects to be as it is
// described, its plan in place, what Envoy asked for accepted, and Envoy's level to change.
func (w *fixture) checkEndpoint(t *testing.T) {
	t.Helper()
	socket := agent.DebugSocket(w.node.RunDir())
	c := ask.Socket("", socket)
	t.Cleanup(c.Close)
	spec := must(c.Open(limit(t), "/v1/openapi.yaml", nil))(t)
	text := must(io.ReadAll(spec))(t)
	check(t, spec.Close())
	openapitest.New(t, text).CheckAnswers(t, unixsocket.Client(socket, 10*time.Second), "http://localhost", true,
		strings.NewReplacer("{namespace}", "shop", "{name}", "web", "/v1/why", "/v1/why?from=shop/client&to=web:80&live"))

	var plan view.RedirectPlan
	check(t, lab.Until(limit(t), "a check of the kernel", func() error {
		if err := c.Get(limit(t), "/v1/redirect", nil, &plan); err != nil {
			return err
		}
		if plan.Checked == nil {
			return fmt.Errorf("the kernel was not compared with the plan yet")
		}
		return nil
	}))
	if len(plan.Drift) > 0 || len(plan.Families) != 2 {
		t.Errorf("drift %+v, %d families", plan.Drift, len(plan.Families))
	}
	for _, f := range plan.Families {
		for _, chain := range f.Chains {
			if chain.InPlace == nil || !*chain.InPlace {
				t.Errorf("chain %+v", chain)
			}
		}
	}
	var x view.XDS
	check(t, c.Get(limit(t), "/v1/xds", url.Values{"kind": {"cluster"}}, &x))
	if n := len(x.Items); n == 0 || x.Streams[0].Kinds["cluster"].Accepted != n || x.Items[0].State != "accepted" {
		t.Errorf("clusters %+v", x)
	}
	now := must(c.SetLogLevel(limit(t), &view.SetLogLevel{Envoy: "error", For: view.Duration(time.Minute)}))(t)
	if now.Envoy != "error" || now.Until == nil {
		t.Errorf("log level %+v", now)
	}
	if now := must(c.SetLogLevel(limit(t), nil))(t); now.Envoy == "error" || now.EnvoyError != "" || now.Until != nil {
		t.Errorf("log level, changed back: %+v", now)
	}
}
