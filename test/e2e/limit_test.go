// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// TestConnectionLimit has a client with more connections than may be redirected:
// those above the limit go past Envoy, and none fails, also while the limit changes.
func TestConnectionLimit(t *testing.T) {
	each(t, append(modes(), podLegacy()), func(t *testing.T, w *fixture) {
		w.start(t, "--max-connections-per-pod", "5")
		w.untilLimited(t, 5)
		check(t, waitFor(t, 5*time.Second, func() error {
			sets, err := w.netns().Run(limit(t), "ipset", "save", "nodevoy-full4")
			if err == nil && strings.Contains(sets, "add ") {
				err = fmt.Errorf("the client has lately had too many connections: %s", sets)
			}
			return err
		}))
		kept := must(w.client.Load(echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Connections: 5, Rate: 100}))(t)
		check(t, waitFor(t, 5*time.Second, func() error {
			if n := len(kept.Records()); n < 50 {
				return fmt.Errorf("%d requests", n)
			}
			return nil
		}))
		// The kernel begins to count anew, while Envoy has what it has.
		must(w.netns().Run(limit(t), "bash", "-c", "ipt=iptables-"+w.variant.IPTables+"\n"+deleteCount))(t)
		w.untilRule(t, "--connlimit-above 5 ")
		w.untilLimited(t, 5)

		fresh := must(w.client.Load(echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Connections: 12, Fresh: true}))(t)
		check(t, w.agent.Stop(endLimit))
		w.startAgent(t, "--max-connections-per-pod", "8")
		w.untilRule(t, "--connlimit-above 8 ")
		stop(t, "more new connections than the limit", fresh)
		stop(t, "connections from before the limit was changed", kept)
		w.untilLimited(t, 8)
	})
}

const deleteCount = `
for table in mangle nat; do
  $ipt-save -t $table | sed -n 's/^-A \(.*connlimit.*\)$/-D \1/p' | while read -r rule; do $ipt -w -t $table $rule; done
done`

// untilRule waits until a rule with this text is there.
func (w *fixture) untilRule(t *testing.T, text string) {
	t.Helper()
	check(t, waitFor(t, repairLimit, func() error {
		rules, err := w.netns().Run(limit(t), "iptables-"+w.variant.IPTables+"-save")
		if err == nil && !strings.Contains(rules, text) {
			err = fmt.Errorf("no rule with %q in %s", text, rules)
		}
		return err
	}))
}

// untilLimited waits until as many of the client's connections as that go through
// Envoy, when it has more.
func (w *fixture) untilLimited(t *testing.T, most int64) {
	t.Helper()
	text := must(w.node.StatusText(limit(t)))(t)
	if want := fmt.Sprintf("at most %d connections of a pod are redirected at a time", most); !strings.Contains(text, want) {
		t.Errorf("the status doesn't say %q:\n%s", want, text)
	}
	check(t, waitFor(t, 10*time.Second, func() error {
		const all = 12
		var relayed atomic.Int64
		r, err := w.client.CallHere(t.Context(), echo.Spec{
			Protocol: echo.HTTP1, Target: web4 + ":80", Connections: all, Requests: all, Delay: 200 * time.Millisecond,
			Each: func(r echo.Record) {
				if r.Fresh && r.Relayed {
					relayed.Add(1)
				}
			},
		})
		if err != nil {
			return err
		}
		if n := relayed.Load(); r.Failed > 0 || n > most {
			t.Fatalf("%d of %d requests failed, %d connections went through Envoy: %v", r.Failed, all, n, r.Errors)
		} else if n < most || r.Connections < all {
			return fmt.Errorf("%d of %d connections went through Envoy", n, r.Connections)
		}
		return nil
	}))
}
