// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/tracer"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// truth is what must become of a connection. It is run twice: by Trace over the
// compiled rules, and by real packets.
type truth struct {
	from, to string
	// want is the class whose listener takes it, or "pod" for the pod itself,
	// with kube-proxy's help or without, or "refused", or nobody.
	want string
	// byUs is set where it is nodevoy's rules that refuse it.
	byUs bool
}

// nobody takes the connection. The client may not be told: the kernel sends a RST for a
// packet that it saw on a bridge past conntrack, so with the address that it was
// translated to (nf_send_reset).
const nobody = "nobody"

func truths() []truth {
	return []truth{
		{from: "enrolled", to: httpService, want: "http"},
		{from: "enrolled", to: tcpService, want: "tcp"},
		{from: "enrolled", to: detectService, want: "detect"},
		{from: "enrolled", to: bypassed, want: "pod"},
		{from: "enrolled", to: idle, want: "refused"},
		{from: "enrolled", to: intoNode, want: nobody},
		{from: "enrolled", to: backend, want: "pod"},
		{from: "enrolled", to: "http-listener", want: "refused", byUs: true},
		{from: "stranger", to: httpService, want: "pod"},
		{from: "stranger", to: tcpService, want: "pod"},
		{from: "stranger", to: intoNode, want: nobody},
		{from: "stranger", to: backend, want: "pod"},
		{from: "stranger", to: "tcp-listener", want: "refused", byUs: true},
		{from: "node", to: httpService, want: "pod"},
		{from: "node", to: detectService, want: "pod"},
		{from: "node", to: backend, want: "pod"},
		// The agent's probe.
		{from: "node", to: "http-listener", want: "http"},
	}
}

func TestTruthByTracing(t *testing.T) {
	sources := map[string]string{"enrolled4": "10.1.0.2", "enrolled6": "fd01::2", "stranger4": "10.1.0.3", "stranger6": "fd01::3", "backend4": "10.1.0.4", "backend6": "fd01::4"}
	for _, m := range []plan.Mechanism{plan.DNAT, plan.TPROXY} {
		cfg := plan.DefaultConfig()
		cfg.Mechanism = m
		desired := plan.Compile(view(), cfg)
		for _, f := range family.All() {
			for _, row := range truths() {
				p := tracer.Packet{To: at(f, row.to), In: "veth1"}
				if row.from == "node" {
					// What the node sends elsewhere never comes in; what it
					// sends itself comes in by lo.
					p.From, p.In = p.To.Addr(), "lo"
				} else {
					p.From = addr(t, sources[row.from+f.Digit()])
				}
				v, err := tracer.Trace(desired, p)
				if err != nil {
					t.Fatal(err)
				}
				got := "left alone"
				switch {
				case v.Rejected:
					got = "rejected"
				case v.Listener.IsValid():
					got = v.Listener.String()
				}
				want := "left alone"
				switch {
				case row.byUs:
					want = "rejected"
				case row.from == "enrolled" && row.want != "pod" && row.want != "refused" && row.want != nobody:
					want = listener(cfg, f, row.want+"-listener").String()
				}
				if got != want {
					t.Errorf("%s %s: from %s to %s: %s, want %s; rules met: %q", m, f, row.from, row.to, got, want, v.Steps)
				}
			}
		}
	}
}

func TestTruthByPackets(t *testing.T) {
	for _, s := range settings() {
		t.Run(s.String(), func(t *testing.T) {
			w := newFixtureApplied(t, s)
			w.checkTruths(truths())
		})
	}
}

// checkTruths makes every connection of the table.
func (w *fixture) checkTruths(rows []truth) {
	w.t.Helper()
	for _, f := range family.All() {
		for _, row := range rows {
			got := w.reached(w.source(row.from), f, row.to)
			want := row.want
			if want == nobody {
				if strings.HasSuffix(got, "i/o timeout") {
					continue
				}
				want = "refused"
			}
			if want != "refused" {
				// Who takes the connection knows where it was meant to go.
				want += " " + w.meant(f, row).String()
			}
			if got != want {
				w.t.Errorf("%s: from %s to %s: %s, want %s", f, row.from, row.to, got, want)
			}
		}
	}
	if w.t.Failed() {
		w.t.Log(w.Run("nft list ruleset"))
	}
}

func (w *fixture) source(name string) *space.Pod {
	return map[string]*space.Pod{"enrolled": w.enrolled, "stranger": w.stranger, "backend": w.backend}[name]
}
