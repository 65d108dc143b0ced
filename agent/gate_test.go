// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds/server"
)

// TestRefusedConcernsItsOwn: what Envoy refuses is left to kube-proxy, with the
// reason, and nothing else; it is served again as soon as Envoy takes it.
func TestRefusedConcernsItsOwn(t *testing.T) {
	web, other := netip.MustParseAddrPort("10.96.0.10:80"), netip.MustParseAddrPort("10.96.0.11:5432")
	for what, refused := range map[string]server.Refused{
		"its cluster":  {Frontends: map[netip.AddrPort]string{web: "cluster 10.96.0.10:80: no such field"}},
		"the routes":   {Routes: "route http: no such cluster"},
		"its listener": {Listeners: map[server.ListenerKey]string{{Class: model.ClassDetect}: "listener detect-v4: cannot bind"}},
	} {
		t.Run(what, func(t *testing.T) {
			withPreparedFixture(t, func(b *fixture) { b.inputs = twoServices() }, func(t *testing.T, b *fixture) {
				b.redirecting(t)
				redirects := func(addr netip.AddrPort) bool {
					for _, set := range b.planned().Families[0].Frontends {
						if slices.Contains(set.Members, addr) {
							return true
						}
					}
					return false
				}
				if !redirects(web) || !redirects(other) {
					t.Fatal("not redirected to begin with")
				}
				st := b.loop.envoy.Status()
				st.Refused = refused
				b.set(st)
				pass(time.Second)
				if redirects(web) || !redirects(other) {
					t.Errorf("refused, its own frontend is redirected: %v, the other: %v", redirects(web), redirects(other))
				}
				if got := b.took(); !slices.Contains(got, "withdraw") || !slices.Contains(got, "apply") || slices.Contains(got, "disengage") {
					t.Errorf("the loop did %q", got)
				}
				if !b.serves(web) {
					t.Error("Envoy is not offered it any more, and could never take it")
				}
				s := b.state()
				if s.Phase != PhaseRedirecting || s.ready(time.Now(), time.Minute) != "" {
					t.Errorf("phase %s, not ready because %q", s.Phase, s.ready(time.Now(), time.Minute))
				}
				for _, f := range s.shown(true).Frontends {
					if told := strings.Contains(f.Bypass, "Envoy refused"); told != (f.Address == web.String()) {
						t.Errorf("status of %s: %q", f.Address, f.Bypass)
					}
				}
				if n := s.shown(false).FrontendCount["bypass"]; n != 1 {
					t.Errorf("status counts %d frontends left to kube-proxy", n)
				}
				if n := gaugeOf(t, b.loop.state, "nodevoy_frontends", "bypass"); n != 1 {
					t.Errorf("the metric counts %v frontends left to kube-proxy", n)
				}
				st.Refused = server.Refused{}
				b.set(st)
				pass(time.Second)
				if !redirects(web) || !redirects(other) {
					t.Error("not redirected once Envoy takes it")
				}
			})
		})
	}
}
