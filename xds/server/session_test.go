// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

// inUse are the frontends in use, as text.
func inUse(s *Server) []string {
	var out []string
	for _, f := range s.InUse() {
		out = append(out, f.String())
	}
	return out
}

func TestOnDemand(t *testing.T) {
	s, _ := startServer(t)
	s.Publish(xdstest.Node(xdstest.Web("10.244.1.1")), nil)
	c := connect(t, s)
	c.ready(s)
	c.subscribe(xds.KindCluster, nil, webName)
	c.expect(xds.KindCluster, []string{webName}, nil)
	c.subscribe(xds.KindEndpoints, nil, webName)
	c.expect(xds.KindEndpoints, []string{webName}, nil)
	if diff := cmp.Diff([]string{webAddress}, inUse(s)); diff != "" {
		t.Errorf("in use (-want +got):\n%s", diff)
	}
	// Another name does not bring the first again.
	c.subscribe(xds.KindCluster, nil, "HTTP/1.1 10.96.0.99:80")
	c.expect(xds.KindCluster, nil, []string{"HTTP/1.1 10.96.0.99:80"})
	// Asked for once more, it is answered once more.
	c.subscribe(xds.KindCluster, nil, webName)
	c.expect(xds.KindCluster, []string{webName}, nil)
	c.expect(xds.KindEndpoints, []string{webName}, nil)
	// The same published again says nothing.
	s.Publish(xdstest.Node(xdstest.Web("10.244.1.1")), nil)
	c.silent()
	// A change is sent alone.
	s.Publish(xdstest.Node(xdstest.Web("10.244.1.1", "10.244.1.2")), nil)
	c.expect(xds.KindEndpoints, []string{webName}, nil)
	c.silent()
	if diff := cmp.Diff([]string{webAddress}, inUse(s)); diff != "" {
		t.Errorf("in use (-want +got):\n%s", diff)
	}
}

func TestUnknownNamesComeAndGo(t *testing.T) {
	s, _ := startServer(t)
	s.Publish(xdstest.Node(), nil)
	c := connect(t, s)
	for k, names := range map[xds.Kind][]string{
		xds.KindCluster: {"HTTP/1.1 10.96.0.10:80", "none"}, xds.KindEndpoints: {"HTTP/1.1 10.96.0.10:80"}, xds.KindRoute: {"other"}, xds.KindListener: {"other"},
	} {
		c.subscribe(k, nil, names...)
		c.expect(k, nil, names)
	}
	c.silent() // By now all answers are in, so that all kinds are pushed.
	for range 3 {
		s.Publish(xdstest.Node(xdstest.Web("10.244.1.1")), nil)
		c.expect(xds.KindCluster, []string{webName}, nil)
		c.expect(xds.KindEndpoints, []string{webName}, nil)
		c.silent()
		s.Publish(xdstest.Node(), nil)
		c.expect(xds.KindCluster, nil, []string{webName})
		c.expect(xds.KindEndpoints, nil, []string{webName})
		c.silent()
	}
}

func TestReconnect(t *testing.T) {
	s, _ := startServer(t)
	s.Publish(xdstest.Node(xdstest.Web("10.244.1.1")), nil)
	c := connect(t, s)
	held := map[xds.Kind]map[string]string{}
	for _, ask := range []struct {
		k     xds.Kind
		names []string
	}{{xds.KindListener, nil}, {xds.KindRoute, []string{xds.RouteName}}, {xds.KindCluster, []string{webName}}, {xds.KindEndpoints, []string{webName}}} {
		c.subscribe(ask.k, nil, ask.names...)
		resp := c.next()
		c.ack(resp, "")
		held[ask.k] = map[string]string{}
		for _, r := range resp.GetResources() {
			held[ask.k][r.GetName()] = r.GetVersion()
		}
	}
	c.close()
	again := connect(t, s)
	again.subscribe(xds.KindListener, held[xds.KindListener])
	again.subscribe(xds.KindRoute, held[xds.KindRoute], xds.RouteName)
	again.subscribe(xds.KindCluster, held[xds.KindCluster], webName)
	again.subscribe(xds.KindEndpoints, held[xds.KindEndpoints], webName)
	again.silent()
	eventually(t, func() error {
		if st := s.Status(); !st.Settled || !st.ListenersAcked || st.InUse != 1 {
			return fmt.Errorf("not settled: %+v", st)
		}
		return nil
	})
	// A client that holds more than there is loses it, and one that holds
	// something else gets what there is.
	again.close()
	third := connect(t, s)
	third.subscribe(xds.KindCluster, map[string]string{webName: "old", "HTTP/1.1 10.96.0.99:80": "v"}, webName, "HTTP/1.1 10.96.0.99:80")
	third.expect(xds.KindCluster, []string{webName}, []string{"HTTP/1.1 10.96.0.99:80"})
}

func TestRefusal(t *testing.T) {
	s, _ := startServer(t)
	s.Publish(xdstest.Node(xdstest.Web("10.244.1.1")), nil)
	c := connect(t, s)
	c.ready(s)
	c.subscribe(xds.KindCluster, nil, webName)
	resp := c.next()
	if st := s.Status(); st.Settled || st.Pending != 1 {
		t.Errorf("with a response not answered: %+v", st)
	}
	c.ack(resp, "no good")
	eventually(t, func() error {
		if st := s.Status(); !st.Settled || st.NackCount != 1 {
			return fmt.Errorf("after the refusal: %+v", st)
		}
		return nil
	})
	st := s.Status()
	want := []Nack{{At: st.Nacks[0].At, Type: "cluster", Names: []string{webName}, Detail: "no good"}}
	if diff := cmp.Diff(want, st.Nacks); diff != "" || st.Nacks[0].At.IsZero() {
		t.Errorf("refusals (-want +got):\n%s", diff)
	}
	for range 5 {
		s.Publish(xdstest.Node(xdstest.Web("10.244.1.1")), nil)
		c.silent()
	}
	// Another kind goes on, and so does this one when it changes.
	c.subscribe(xds.KindEndpoints, nil, webName)
	c.expect(xds.KindEndpoints, []string{webName}, nil)
	c.silent()
	s.Publish(xdstest.Node(), nil)
	c.expect(xds.KindCluster, nil, []string{webName})
	c.expect(xds.KindEndpoints, nil, []string{webName})
	eventually(t, func() error {
		want := KindStatus{Responses: 2, Acks: 1, Nacks: 1}
		if got := s.Status().Kinds[xds.KindCluster]; got != want {
			return fmt.Errorf("figures %+v, want %+v", got, want)
		}
		return nil
	})
}

func TestRefusalsAreBounded(t *testing.T) {
	s, _ := startServer(t)
	s.Publish(xdstest.Node(), nil)
	c := connect(t, s)
	c.subscribe(xds.KindListener, nil)
	c.next()
	for i := range maxNacks + 10 {
		name := fmt.Sprintf("x%d", i)
		c.subscribe(xds.KindCluster, nil, name)
		c.ack(c.next(), name)
	}
	eventually(t, func() error {
		if st := s.Status(); st.NackCount != maxNacks+10 {
			return fmt.Errorf("%d refusals", st.NackCount)
		}
		return nil
	})
	st := s.Status()
	if len(st.Nacks) != maxNacks || st.Nacks[maxNacks-1].Detail != fmt.Sprintf("x%d", maxNacks+9) {
		t.Errorf("%d refusals are kept, the last %+v", len(st.Nacks), st.Nacks[len(st.Nacks)-1])
	}
	if st.ListenersAcked || st.Settled {
		t.Errorf("listeners that were not answered: %+v", st)
	}
}

// TestAssignmentAfterCluster: every cluster that is sent is followed by its
// assignment, in whatever order the two are asked for and change.
func TestAssignmentAfterCluster(t *testing.T) {
	var timeout atomic.Int64
	s, _ := startServer(t, Override(func(_ string, m proto.Message) {
		if c, ok := m.(*clusterv3.Cluster); ok {
			c.ConnectTimeout = durationpb.New(time.Second + time.Duration(timeout.Load()))
		}
	}))
	node := xdstest.Node(xdstest.Web("10.244.1.1"))
	s.Publish(node, nil)
	c := connect(t, s)
	// As on a new stream: the assignment may be asked for first.
	c.subscribe(xds.KindEndpoints, map[string]string{webName: "old"}, webName)
	c.expect(xds.KindEndpoints, []string{webName}, nil)
	c.subscribe(xds.KindCluster, map[string]string{webName: "old"}, webName)
	c.expect(xds.KindCluster, []string{webName}, nil)
	c.expect(xds.KindEndpoints, []string{webName}, nil)
	c.silent()
	// Changed while the cluster before has not been answered.
	timeout.Add(1)
	s.Publish(node, nil)
	cluster, assignment := c.next(), c.next()
	c.check(cluster, xds.KindCluster, []string{webName}, nil)
	c.check(assignment, xds.KindEndpoints, []string{webName}, nil)
	timeout.Add(1)
	s.Publish(node, nil)
	c.ack(assignment, "")
	third := c.next()
	c.check(third, xds.KindEndpoints, []string{webName}, nil)
	c.ack(third, "")
	c.ack(cluster, "")
	c.expect(xds.KindCluster, []string{webName}, nil)
	c.expect(xds.KindEndpoints, []string{webName}, nil)
	c.silent()
}

// TestUnsubscribe: what a client wants no more is not sent, and counts as in
// use no more; wanted again, it is sent again.
func TestUnsubscribe(t *testing.T) {
	s, _ := startServer(t)
	s.Publish(xdstest.Node(xdstest.Web("10.244.1.1")), nil)
	c := connect(t, s)
	c.subscribe(xds.KindEndpoints, nil, webName)
	c.expect(xds.KindEndpoints, []string{webName}, nil)
	c.subscribe(xds.KindCluster, nil, webName)
	c.expect(xds.KindCluster, []string{webName}, nil)
	c.expect(xds.KindEndpoints, []string{webName}, nil)
	for _, k := range []xds.Kind{xds.KindCluster, xds.KindEndpoints} {
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: k.TypeURL(), ResourceNamesUnsubscribe: []string{webName}})
	}
	c.silent()
	s.Publish(xdstest.Node(xdstest.Web("10.244.1.2")), nil)
	c.silent()
	if got := inUse(s); len(got) != 0 {
		t.Errorf("in use: %v", got)
	}
	c.subscribe(xds.KindCluster, nil, webName)
	c.expect(xds.KindCluster, []string{webName}, nil)
}

// TestEverything: listeners come without being named, by either way to say so.
func TestEverything(t *testing.T) {
	s, _ := startServer(t)
	s.Publish(xdstest.Node(), nil)
	all := []string{"detect-v4", "detect-v6", "http-v4", "http-v6", "tcp-v4", "tcp-v6"}
	for _, names := range [][]string{nil, {"*"}} {
		c := connect(t, s)
		c.subscribe(xds.KindListener, nil, names...)
		c.expect(xds.KindListener, all, nil)
		c.close()
	}
	// What a client holds beyond that is removed.
	c := connect(t, s)
	c.subscribe(xds.KindListener, map[string]string{"old": "v"})
	c.expect(xds.KindListener, all, []string{"old"})
}
