// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/xds/server"
)

// saw has Envoy see something at the fixture's Service; nothing for the zero value.
func (b *fixture) saw(seen model.Seen) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = map[netip.AddrPort]model.Seen{theService(): seen}
	b.status.UseChanges++
}

// classOf is the class that a plan has for an address.
func classOf(p *plan.Plan, at netip.AddrPort) string {
	for i, class := range model.Classes() {
		if slices.Contains(p.Families[0].Frontends[i].Members, at) {
			return class.String()
		}
	}
	return ""
}

// TestLearns: what Envoy sees at a port that declares nothing moves it to another class,
// in the kernel and in the status, once, and lasts while Envoy keeps its clusters.
func TestLearns(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.redirecting(t)
		for _, step := range []struct {
			what  string
			seen  model.Seen
			class string
			did   []string
		}{
			{"something that proves nothing", model.Seen{Other: true}, "detect", nil},
			{"HTTP", model.Seen{HTTP: true}, "http", []string{"withdraw", "apply"}},
			{"HTTP again", model.Seen{HTTP: true}, "http", nil},
			{"nothing, as Envoy is a new one", model.Seen{}, "detect", []string{"withdraw", "apply"}},
			{"TLS", model.Seen{TLS: true}, "tcp", []string{"withdraw", "apply"}},
		} {
			b.saw(step.seen)
			pass(reviewInterval + time.Millisecond)
			f, _ := b.state().Node.Frontend(theService())
			if got := classOf(b.planned(), theService()); got != step.class || f.Class.String() != step.class {
				t.Errorf("%s: class %s in the kernel, %s in the state, want %s", step.what, got, f.Class, step.class)
			}
			if did := slices.DeleteFunc(b.took(), func(s string) bool { return s == "refresh" }); !slices.Equal(did, step.did) {
				t.Errorf("%s: the loop did %q, want %q", step.what, did, step.did)
			}
		}
		b.change()
		pass(time.Second)
		if got := classOf(b.planned(), theService()); got != "tcp" {
			t.Errorf("after a change of objects: class %s, want tcp", got)
		}
	})
}

// TestLearnsBeforeItRedirects: an agent that starts beside an Envoy that has been at work
// applies no class that it would correct at once.
func TestLearnsBeforeItRedirects(t *testing.T) {
	withFixture(t, func(t *testing.T, b *fixture) {
		b.change()
		pass(time.Second)
		b.saw(model.Seen{TLS: true})
		b.set(server.Status{Connected: true, Since: time.Now(), ListenersAcked: true, Settled: true, UseChanges: 1})
		b.state()
		if got := classOf(b.planned(), theService()); got != "tcp" {
			t.Errorf("class %s at first, want tcp", got)
		}
		if did := b.took(); slices.Index(did, "apply") != len(did)-1 {
			t.Errorf("the loop did %q, want one apply, at the end", did)
		}
	})
}
