// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

// envoy answers what a server sends without a socket in between. It refuses a
// whole response that holds any of the bad names, and doesn't say which.
type envoy struct {
	*session
	t     *testing.T
	out   chan cache.DeltaResponse
	nonce int
	bad   map[string]bool
	// responses are the names of each response, by kind.
	responses [xds.KindCount][][]string
}

func newEnvoy(t *testing.T, s *Server, bad ...string) *envoy {
	e := &envoy{session: s.open(), t: t, out: make(chan cache.DeltaResponse, 16), bad: map[string]bool{}}
	for _, name := range bad {
		e.bad[name] = true
	}
	return e
}

// ask asks for names, all of them if there are none, and answers until there is
// nothing to answer.
func (e *envoy) ask(k xds.Kind, names ...string) {
	e.t.Helper()
	e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: k.TypeURL(), ResourceNamesSubscribe: names}, len(names) == 0)
	e.answer()
}

func (e *envoy) send(req *discoveryv3.DeltaDiscoveryRequest, wildcard bool) {
	e.t.Helper()
	if err := e.OnStreamDeltaRequest(1, req); err != nil {
		e.t.Fatal(err)
	}
	sub := stream.NewDeltaSubscription(nil, nil, nil, wildcard)
	if _, err := e.CreateDeltaWatch(req, &sub, e.out); err != nil {
		e.t.Fatal(err)
	}
}

func (e *envoy) answer() {
	e.t.Helper()
	for len(e.out) > 0 {
		resp, err := (<-e.out).GetDeltaDiscoveryResponse()
		if err != nil {
			e.t.Fatal(err)
		}
		e.nonce++
		resp.Nonce = fmt.Sprint(e.nonce)
		e.OnStreamDeltaResponse(1, nil, resp)
		k, _ := xds.KindOf(resp.GetTypeUrl())
		req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
		var names []string
		for _, r := range resp.GetResources() {
			names = append(names, r.GetName())
			if e.bad[k.String()+" "+r.GetName()] {
				req.ErrorDetail = &statuspb.Status{Message: "no good"}
			}
		}
		e.responses[k] = append(e.responses[k], names)
		e.send(req, k == xds.KindListener)
	}
}

// took returns the responses of a kind since it was last called.
func (e *envoy) took(k xds.Kind) [][]string {
	out := e.responses[k]
	e.responses[k] = nil
	return out
}

// webs are so many Services, and the names of their clusters.
func webs(n int) (services []xdstest.Service, names []string) {
	for i := range n {
		ip := fmt.Sprintf("10.96.0.%d", i)
		services = append(services, xdstest.Service{Name: fmt.Sprintf("web-%d", i), ClusterIP: ip, Port: 80, Pods: []string{"10.244.1.1"}})
		names = append(names, "HTTP/1.1 "+ip+":80")
	}
	return services, names
}

func newTestServer(t *testing.T, cfg xds.Config, opts ...Option) *Server {
	t.Helper()
	s, err := New(cfg, zap.NewNop(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sameRefused(want Refused, st Status) string {
	return cmp.Diff(want, st.Refused, cmpopts.EquateComparable(netip.AddrPort{}))
}

// TestRefusedAreFound: of a refused response, everything but the resources that
// Envoy refuses is accepted, and these are named, whatever their kind.
func TestRefusedAreFound(t *testing.T) {
	services, names := webs(16)
	two := names[0]
	address := func(name string) netip.AddrPort { at, _, _ := xds.FrontendOf(name); return at }
	for name, c := range map[string]struct {
		bad  []string
		want Refused
	}{
		"none":        {nil, Refused{}},
		"one cluster": {[]string{"cluster " + two}, Refused{Frontends: map[netip.AddrPort]string{address(two): "cluster " + two + ": no good"}}},
		"two clusters and an assignment": {[]string{"cluster " + two, "cluster " + names[15], "endpoints " + names[7]}, Refused{Frontends: map[netip.AddrPort]string{
			address(two): "cluster " + two + ": no good", address(names[15]): "cluster " + names[15] + ": no good", address(names[7]): "endpoints " + names[7] + ": no good",
		}}},
		"both of one frontend": {[]string{"cluster " + two, "endpoints " + two}, Refused{Frontends: map[netip.AddrPort]string{
			address(two): "cluster " + two + ": no good; endpoints " + two + ": no good",
		}}},
		"the routes": {[]string{"route " + xds.RouteName}, Refused{Routes: "route http: no good"}},
		"a listener": {[]string{"listener http-v6"}, Refused{Listeners: map[ListenerKey]string{{Class: model.ClassHTTP, V6: true}: "listener http-v6: no good"}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestServer(t, testConfig())
			s.Publish(xdstest.Node(services...), nil)
			e := newEnvoy(t, s, c.bad...)
			e.ask(xds.KindListener)
			e.ask(xds.KindRoute, xds.RouteName)
			e.ask(xds.KindCluster, names...)
			e.ask(xds.KindEndpoints, names...)
			st := s.Status()
			if diff := sameRefused(c.want, st); diff != "" || !settled(st) {
				t.Errorf("settled %v, refused (-want +got):\n%s", settled(st), diff)
			}
			for _, name := range names {
				for _, k := range []xds.Kind{xds.KindCluster, xds.KindEndpoints} {
					if acked := e.subs[k].acked[name] == s.current.version(k, name); acked == e.bad[k.String()+" "+name] {
						t.Errorf("%s %s is accepted: %v", k, name, acked)
					}
				}
			}
			// What is refused waits; a change of another comes through.
			for k := range xds.KindCount {
				e.took(k)
			}
			changed := slices.Clone(services)
			changed[3].Pods = []string{"10.244.1.2"}
			s.Publish(xdstest.Node(changed...), nil)
			e.answer()
			if diff := cmp.Diff([][]string{{names[3]}}, e.took(xds.KindEndpoints)); diff != "" {
				t.Errorf("endpoints sent after a change (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFewResponsesFindTheGuilty: among many, in a number of responses that grows
// with the logarithm of how many there are.
func TestFewResponsesFindTheGuilty(t *testing.T) {
	services, names := webs(128)
	s := newTestServer(t, testConfig())
	s.Publish(xdstest.Node(services...), nil)
	e := newEnvoy(t, s, "endpoints "+names[77])
	e.ask(xds.KindEndpoints, names...)
	if n := len(e.took(xds.KindEndpoints)); n != 1+2*7 {
		t.Errorf("%d responses for 128 assignments of which one is refused, want 15", n)
	}
	if n := len(s.Status().Refused.Frontends); n != 1 {
		t.Errorf("%d frontends are refused", n)
	}
}

// TestRefusedIsSentAgain: after five seconds and then after twice as long each
// time, at most a minute, with nothing published meanwhile; and at once when it
// changes.
func TestRefusedIsSentAgain(t *testing.T) {
	services, names := webs(3)
	for what, c := range map[string]struct {
		k    xds.Kind
		name string
		ask  []string
	}{
		"cluster":   {xds.KindCluster, names[1], names},
		"endpoints": {xds.KindEndpoints, names[1], names},
		"listener":  {xds.KindListener, "tcp-v4", nil},
		"route":     {xds.KindRoute, xds.RouteName, nil},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTestServer(t, testConfig())
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() { defer close(ended); s.retry(ctx) }()
				defer func() { cancel(); <-ended }()
				s.Publish(xdstest.Node(services...), nil)
				e := newEnvoy(t, s, c.k.String()+" "+c.name)
				e.ask(xds.KindListener)
				e.ask(xds.KindRoute, xds.RouteName)
				if c.ask != nil {
					e.ask(c.k, c.ask...)
				}
				e.took(c.k)
				var pauses []time.Duration
				last := time.Now()
				for time.Since(last) < 2*retryMax && len(pauses) < 7 {
					<-time.After(time.Second)
					synctest.Wait()
					e.answer()
					if got := e.took(c.k); got != nil {
						if diff := cmp.Diff([][]string{{c.name}}, got); diff != "" {
							t.Fatalf("sent again (-want +got):\n%s", diff)
						}
						pauses = append(pauses, time.Since(last).Round(time.Second))
						last = time.Now()
					}
				}
				want := []time.Duration{5, 10, 20, 40, 60, 60, 60}
				for i := range want {
					want[i] *= time.Second
				}
				if len(pauses) != len(want) {
					t.Fatalf("sent again after %v", pauses)
				}
				for i := range want {
					// The server looks once a second.
					if d := pauses[i] - want[i]; d < 0 || d > 2*retryInterval {
						t.Errorf("sent again after %v, want %v", pauses, want)
					}
				}
				e.bad = map[string]bool{}
				<-time.After(retryMax + 2*time.Second)
				synctest.Wait()
				e.answer()
				if st := s.Status(); !settled(st) || st.Refused.Any() {
					t.Errorf("once it is accepted: %+v", st)
				}
				e.took(c.k)
				<-time.After(10 * time.Minute)
				synctest.Wait()
				e.answer()
				if got := e.took(c.k); got != nil {
					t.Errorf("accepted, and sent again: %v", got)
				}
			})
		})
	}
}

// TestChangedIsSentAtOnce: a refused resource that changes doesn't wait, and the
// pause starts again.
func TestChangedIsSentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		services, names := webs(1)
		s := newTestServer(t, testConfig())
		s.Publish(xdstest.Node(services...), nil)
		e := newEnvoy(t, s, "endpoints "+names[0])
		e.ask(xds.KindEndpoints, names...)
		for range 3 {
			<-time.After(retryMax)
			s.resendRefused()
			e.answer()
		}
		e.took(xds.KindEndpoints)
		services[0].Pods = []string{"10.244.1.9"}
		s.Publish(xdstest.Node(services...), nil)
		e.answer()
		if n := len(e.took(xds.KindEndpoints)); n != 1 {
			t.Errorf("a change of a refused resource is sent %d times", n)
		}
		<-time.After(retryFirst)
		s.resendRefused()
		e.answer()
		if n := len(e.took(xds.KindEndpoints)); n != 1 {
			t.Errorf("the changed resource is sent again %d times in 5 s, want once", n)
		}
		s.Publish(xdstest.Node(), nil)
		e.answer()
		if st := s.Status(); st.Refused.Any() {
			t.Errorf("of a Service that is gone, %+v is refused", st.Refused)
		}
	})
}

// TestUnwantedIsNotSentAgain: what the client doesn't want any more is not
// refused any more either.
func TestUnwantedIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		services, names := webs(2)
		s := newTestServer(t, testConfig())
		s.Publish(xdstest.Node(services...), nil)
		e := newEnvoy(t, s, "cluster "+names[0])
		e.ask(xds.KindCluster, names...)
		e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.KindCluster.TypeURL(), ResourceNamesUnsubscribe: names[:1]}, false)
		e.took(xds.KindCluster)
		<-time.After(time.Hour)
		s.resendRefused()
		e.answer()
		if got := e.took(xds.KindCluster); got != nil || s.Status().Refused.Any() {
			t.Errorf("sent %v, refused %+v", got, s.Status().Refused)
		}
		if got := s.Status().InUse; got != 1 {
			t.Errorf("%d frontends in use", got)
		}
		s.close(e.session, false)
		if st := s.Status(); st.InUse != 0 || len(s.InUse()) != 0 {
			t.Errorf("without an Envoy: %d in use, %v", st.InUse, s.InUse())
		}
	})
}

// TestRefusedFrontend: which frontends a refusal concerns.
func TestRefusedFrontend(t *testing.T) {
	r := Refused{
		Frontends: map[netip.AddrPort]string{netip.MustParseAddrPort("10.0.0.1:80"): "own"},
		Listeners: map[ListenerKey]string{{Class: model.ClassTCP, V6: true}: "tcp6"},
		Routes:    "routes",
	}
	for _, c := range []struct {
		address string
		class   model.Class
		want    string
	}{
		{"10.0.0.1:80", model.ClassTCP, "own"},
		{"10.0.0.1:80", model.ClassHTTP, "own"},
		{"10.0.0.2:80", model.ClassTCP, ""},
		{"10.0.0.2:80", model.ClassHTTP, "routes"},
		{"10.0.0.2:80", model.ClassDetect, "routes"},
		{"[fd00::1]:80", model.ClassTCP, "tcp6"},
		{"[fd00::1]:80", model.ClassHTTP, "routes"},
	} {
		f := &model.Frontend{Address: netip.MustParseAddrPort(c.address), Class: c.class}
		if got := r.Frontend(f); got != c.want {
			t.Errorf("%s of class %s: %q, want %q", c.address, c.class, got, c.want)
		}
		if got := (Refused{}).Frontend(f); got != "" {
			t.Errorf("with nothing refused: %q", got)
		}
	}
	if !r.Any() || (Refused{}).Any() {
		t.Error("whether anything is refused is wrong")
	}
}

// TestReason: a reason is one line, of bounded length, with both of its ends.
func TestReason(t *testing.T) {
	if got := reason("bad:\n  no\tgood\n"); got != "bad: no good" {
		t.Errorf("got %q", got)
	}
	got := reason("begin " + strings.Repeat("é ", 10_000) + " end")
	if len(got) > maxReason+10 || !strings.HasPrefix(got, "begin ") || !strings.HasSuffix(got, " end") || strings.Contains(got, "\ufffd") {
		t.Errorf("got %d bytes: %q", len(got), got)
	}
}

// TestStatusIsCheap: the status is asked for at every tick of the agent, so what
// takes as long as there are names is found once after each change.
func TestStatusIsCheap(t *testing.T) {
	_, two, names := cluster()
	s, err := New(testConfig(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	s.Publish(two, nil)
	var bad []string
	for _, name := range names[:100] {
		bad = append(bad, "cluster "+name)
	}
	e := newEnvoy(t, s, bad...)
	e.ask(xds.KindListener)
	e.ask(xds.KindRoute, xds.RouteName)
	e.ask(xds.KindCluster, names...)
	refused, listening := func() int { return len(s.Status().Refused.Frontends) }, func() *listening { return e.listeners }
	if n := refused(); n != len(bad) {
		t.Fatalf("%d frontends refused, want %d", n, len(bad))
	}
	first := listening()
	if allocs := testing.AllocsPerRun(100, func() { refused() }); allocs > 0 || listening() != first || first == nil {
		t.Errorf("asking again, with nothing changed, allocates %v times and finds the listeners' state anew: %v", allocs, listening() != first)
	}
}
