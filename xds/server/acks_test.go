// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

func TestNamedErrors(t *testing.T) {
	names := map[string]string{"http/a/b/1": "v", "tcp/a/b/1": "v", "tcp/a/c/2": "v"}
	for name, c := range map[string]struct {
		detail string
		want   map[string]string
	}{
		"one": {"Error adding/updating listener(s) tcp/a/b/1: cannot bind '127.0.0.1:23721': Address already in use\n", map[string]string{
			"tcp/a/b/1": "cannot bind '127.0.0.1:23721': Address already in use",
		}},
		"two": {"Error adding/updating listener(s) http/a/b/1: bad\ntcp/a/c/2: worse\n", map[string]string{"http/a/b/1": "bad", "tcp/a/c/2": "worse"}},
		"two lines of one": {"Error adding/updating listener(s) http/a/b/1: bad:\n  no: good\ntcp/a/c/2: worse", map[string]string{
			"http/a/b/1": "bad: no: good", "tcp/a/c/2": "worse",
		}},
		"none of ours": {"Error adding/updating listener(s) tcp/a/d/3: bad", map[string]string{}},
		"other words":  {"tcp/a/b/1: listeners are not available", map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, namedErrors(c.detail, names)); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

// startPods runs a server in pod mode, whose clock is the test's.
func startPods(t *testing.T) (s *Server, forward func(time.Duration)) {
	t.Helper()
	cfg := podConfig()
	cfg.Socket = filepath.Join(t.TempDir(), "xds.sock")
	offset := time.Duration(0)
	s, _ = startAt(t, cfg, func(s *Server) {
		s.now = func() time.Time { return time.Unix(1000, 0).Add(offset) }
	})
	return s, func(d time.Duration) {
		s.mu.Lock()
		offset += d
		s.mu.Unlock()
		s.resendRefused()
	}
}

// names are those of the pods' listeners.
func names(pods ...string) []string {
	var out []string
	for _, class := range []string{"detect", "http", "tcp"} {
		for _, p := range pods {
			out = append(out, class+"/shop/"+p+"/uid-"+p)
		}
	}
	return out
}

// await waits for the status to be so.
func await(t *testing.T, s *Server, what string, so func(Status) bool) {
	t.Helper()
	eventually(t, func() error {
		if st := s.Status(); !so(st) {
			return fmt.Errorf("want %s: %+v", what, st)
		}
		return nil
	})
}

func settled(st Status) bool { return st.Settled && st.ListenersAcked }

// TestPodsComeAndGo: what comes or goes is sent alone, and nothing is kept of
// what went.
func TestPodsComeAndGo(t *testing.T) {
	s, _ := startPods(t)
	s.Publish(xdstest.Node(), nil)
	c := connect(t, s)
	c.subscribe(xds.KindListener, nil)
	c.expect(xds.KindListener, nil, nil) // There are none: that is an answer, too.
	await(t, s, "settled without a pod", settled)
	one, two := xdstest.Target("one"), xdstest.Target("two")
	s.Publish(xdstest.Node(), []model.PodTarget{one})
	c.expect(xds.KindListener, names("one"), nil)
	await(t, s, "not settled before routes are asked for", func(st Status) bool { return st.Pending == 0 && !st.Settled })
	c.subscribe(xds.KindRoute, nil, xds.RouteName)
	c.expect(xds.KindRoute, []string{xds.RouteName}, nil)
	await(t, s, "settled with a pod", settled)
	for range 3 {
		s.Publish(xdstest.Node(xdstest.Web("10.244.1.1")), []model.PodTarget{one})
		c.silent()
		s.Publish(xdstest.Node(), []model.PodTarget{one, two})
		c.expect(xds.KindListener, names("two"), nil)
		s.Publish(xdstest.Node(), []model.PodTarget{one})
		c.expect(xds.KindListener, nil, names("two"))
	}
	two.Pod = "one"
	s.Publish(xdstest.Node(), []model.PodTarget{one, two}) // As another pod of the same name.
	c.expect(xds.KindListener, []string{"detect/shop/one/uid-two", "http/shop/one/uid-two", "tcp/shop/one/uid-two"}, nil)
	s.Publish(xdstest.Node(), nil)
	c.expect(xds.KindListener, nil, []string{
		"detect/shop/one/uid-one", "detect/shop/one/uid-two", "http/shop/one/uid-one", "http/shop/one/uid-two", "tcp/shop/one/uid-one", "tcp/shop/one/uid-two",
	})
	await(t, s, "settled without a pod again", settled)
	s.mu.Lock()
	defer s.mu.Unlock()
	for sess := range s.sessions {
		if l := &sess.subs[xds.KindListener]; len(l.sent)+len(l.acked)+len(l.refused)+len(l.due) != 0 {
			t.Errorf("remembered of pods that went: %v, %v, %v, %v", l.sent, l.acked, l.refused, l.due)
		}
	}
}

// TestRefusedPod: a listener that is refused is named and sent again five
// seconds later; the others are not concerned.
func TestRefusedPod(t *testing.T) {
	s, forward := startPods(t)
	both := []model.PodTarget{xdstest.Target("one"), xdstest.Target("two")}
	s.Publish(xdstest.Node(), both)
	c := connect(t, s)
	c.subscribe(xds.KindListener, nil)
	resp := c.next()
	c.check(resp, xds.KindListener, names("one", "two"), nil)
	const bad = "tcp/shop/two/uid-two"
	c.ack(resp, "Error adding/updating listener(s) "+bad+": port taken\n")
	c.subscribe(xds.KindRoute, nil, xds.RouteName)
	c.expect(xds.KindRoute, []string{xds.RouteName}, nil)
	refused := Refused{Pods: map[string]string{"uid-two": "listener " + bad + ": port taken"}}
	await(t, s, "one refused", func(st Status) bool { return settled(st) && cmp.Equal(st.Refused, refused) && st.NackCount == 1 })
	for name, want := range map[string]Standing{
		bad: {Asked: true, Sent: true, Refused: "port taken"}, "http/shop/two/uid-two": {Asked: true, Sent: true, Acked: true}, "http/shop/three/uid-three": {},
	} {
		if got := s.Standing(xds.KindListener, name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	forward(retryFirst - time.Second)
	s.Publish(xdstest.Node(), both)
	c.silent()
	forward(time.Second)
	s.Publish(xdstest.Node(), both)
	resp = c.next()
	c.check(resp, xds.KindListener, []string{bad}, nil)
	await(t, s, "not settled, and refused as before", func(st Status) bool { return !st.Settled && st.ListenersAcked && cmp.Equal(st.Refused, refused) })
	c.ack(resp, "still no good")
	refused.Pods["uid-two"] = "listener " + bad + ": still no good"
	await(t, s, "refused again", func(st Status) bool { return settled(st) && cmp.Equal(st.Refused, refused) && st.NackCount == 2 })
	// A change is sent at once, and what went is refused no more.
	both[1].V6 = false
	s.Publish(xdstest.Node(), both)
	c.expect(xds.KindListener, names("two"), nil)
	await(t, s, "accepted", func(st Status) bool { return settled(st) && !st.Refused.Any() })
	forward(time.Hour)
	s.Publish(xdstest.Node(), both)
	c.silent()
	both[1].V6 = true
	s.Publish(xdstest.Node(), both)
	resp = c.next()
	c.ack(resp, listenerErrors+bad+": port taken")
	await(t, s, "refused", func(st Status) bool { return settled(st) && len(st.Refused.Pods) == 1 })
	s.Publish(xdstest.Node(), both[:1])
	c.expect(xds.KindListener, nil, names("two"))
	await(t, s, "gone", func(st Status) bool { return settled(st) && !st.Refused.Any() })
}

// TestAllRefused: without a listener that needs them, nobody asks for routes.
func TestAllRefused(t *testing.T) {
	s, _ := startPods(t)
	s.Publish(xdstest.Node(), []model.PodTarget{xdstest.Target("one")})
	c := connect(t, s)
	c.subscribe(xds.KindListener, nil)
	c.ack(c.next(), "no such namespace")
	// Which of them it refused is not said: each is sent apart.
	for range 4 {
		c.ack(c.next(), "no such namespace")
	}
	const why = "listener detect/shop/one/uid-one: no such namespace; listener http/shop/one/uid-one: no such namespace; listener tcp/shop/one/uid-one: no such namespace"
	await(t, s, "all refused", func(st Status) bool {
		return settled(st) && cmp.Equal(st.Refused, Refused{Pods: map[string]string{"uid-one": why}})
	})
}

// TestRefusedInHostMode: there a refused listener concerns the frontends of its
// class and family.
func TestRefusedInHostMode(t *testing.T) {
	s, _ := startServer(t)
	s.Publish(xdstest.Node(), nil)
	c := connect(t, s)
	c.subscribe(xds.KindListener, nil)
	c.ack(c.next(), "Error adding/updating listener(s) tcp-v4: port taken")
	c.subscribe(xds.KindRoute, nil, xds.RouteName)
	c.expect(xds.KindRoute, []string{xds.RouteName}, nil)
	await(t, s, "one refused", func(st Status) bool {
		return settled(st) && cmp.Equal(st.Refused, Refused{Listeners: map[ListenerKey]string{{Class: model.ClassTCP}: "listener tcp-v4: port taken"}})
	})
}

// TestEnvoyVersion: the lowest of those that are connected.
func TestEnvoyVersion(t *testing.T) {
	s, _ := startServer(t)
	s.Publish(xdstest.Node(), nil)
	say := func(c *client, version *typev3.SemanticVersion) {
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.KindRoute.TypeURL(), ResourceNamesSubscribe: []string{"x"}, Node: &corev3.Node{
			UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corev3.BuildVersion{Version: version}},
		}})
	}
	is := func(want string) {
		t.Helper()
		await(t, s, "version "+want, func(st Status) bool { return st.Version.String() == want })
	}
	is("")
	one := connect(t, s)
	is("")
	say(one, &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 40, Patch: 2})
	is("1.40.2")
	two := connect(t, s)
	say(two, &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 9, Patch: 11})
	is("1.9.11")
	two.close()
	is("1.40.2")
	one.close()
	is("")
}
