// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"net/netip"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

// wide is a node with a Service scan/wide of n ports from 1000 on, and the Services
// shop/web-0 and so on, and the names of their clusters.
func wide(n, webs int) (node *model.Node, scanned, others []string) {
	tcp, target, ready := corev1.ProtocolTCP, int32(8080), true
	in := model.Inputs{NodeName: "node-a"}
	add := func(namespace, name, ip string, ports int) (names []string) {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		}}
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.1.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		}
		for i := range ports {
			port := fmt.Sprintf("http-%d", i)
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: port, Port: int32(1000 + i), Protocol: tcp})
			slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &port, Port: &target, Protocol: &tcp})
			names = append(names, fmt.Sprintf("HTTP/1.1 %s:%d", ip, 1000+i))
		}
		in.Services, in.EndpointSlices = append(in.Services, svc), append(in.EndpointSlices, slice)
		return names
	}
	scanned = add("scan", "wide", "10.96.7.1", n)
	for i := range webs {
		others = append(others, add("shop", fmt.Sprintf("web-%d", i), fmt.Sprintf("10.96.8.%d", i+1), 1)...)
	}
	return model.Build(in, model.DefaultOptions()), scanned, others
}

// addedRemoved are the names that a response adds and removes.
func addedRemoved(resp *discoveryv3.DeltaDiscoveryResponse) (added, removed map[string]bool) {
	added, removed = map[string]bool{}, map[string]bool{}
	for _, r := range resp.GetResources() {
		added[r.GetName()] = true
	}
	for _, name := range resp.GetRemovedResources() {
		removed[name] = true
	}
	return added, removed
}

// TestFirstCallPassesMany: a client that asks for many names of one Service is sent
// some at a time, and the next Service's come between.
func TestFirstCallPassesMany(t *testing.T) {
	s, _ := startServer(t)
	node, scanned, others := wide(10*maxLoads, 1)
	s.Publish(node, nil)
	c := connect(t, s)
	c.ready(s)
	c.subscribe(xds.KindCluster, nil, scanned...)
	first := c.next()
	if added, removed := addedRemoved(first); len(added) != maxLoads || len(removed) != 0 {
		t.Fatalf("%d added, %d removed, want %d and none", len(added), len(removed), maxLoads)
	}
	// Asked for meanwhile, it waits for the answer, and then comes first.
	c.subscribe(xds.KindCluster, nil, others...)
	c.silent()
	if st := s.Status(); st.Settled || !st.Loading {
		t.Errorf("with nothing missing but what was asked for: settled %v, loading %v", st.Settled, st.Loading)
	}
	got := 0
	for resp := first; ; resp = c.next() {
		added, _ := addedRemoved(resp)
		got += len(added)
		if got > maxLoads && got <= 2*maxLoads && !added[others[0]] {
			t.Error("the other Service did not come next")
		}
		c.ack(resp, "")
		if got == len(scanned)+1 {
			break
		}
	}
	c.silent()
}

// TestMemoryIsLimited: Envoy is given no more than the limit, of whatever is asked for,
// and the last of it only to those who have little.
func TestMemoryIsLimited(t *testing.T) {
	node, scanned, others := wide(500, 20)
	s := newTestServer(t, testConfig())
	s.cfg.ClusterMemory = 40 * xds.ClusterMemory(node.Frontends[0])
	s.Publish(node, nil)
	e := newEnvoy(t, s)
	e.ask(xds.KindListener)
	e.ask(xds.KindRoute, xds.RouteName)
	e.ask(xds.KindCluster, scanned...)
	st := s.Status()
	if st.InUse != 35 || st.Denied != len(scanned)-35 || st.Memory > s.cfg.ClusterMemory/8*7 {
		t.Errorf("%d in use, %d denied, %d of %d bytes; want seven eighths of 40 in use", st.InUse, st.Denied, st.Memory, s.cfg.ClusterMemory)
	}
	e.ask(xds.KindCluster, others...)
	if st := s.Status(); st.InUse != 40 || st.Memory > s.cfg.ClusterMemory {
		t.Errorf("%d in use, %d of %d bytes; want 40", st.InUse, st.Memory, s.cfg.ClusterMemory)
	}
	uses, denied := s.Uses()
	if len(uses) != 40 || len(denied) != 480 || uses[0].Number != 1 || uses[0].Port.Service != "wide" {
		t.Errorf("%d uses, the first %+v, %d denied", len(uses), uses[0], len(denied))
	}
	// Once there is room, what was denied is sent unasked, as Envoy does not ask again.
	e.took(xds.KindCluster)
	fewer := node.Bypassing(func(f *model.Frontend) string {
		if f.Port.Namespace == "scan" {
			return "left"
		}
		return ""
	})
	s.Publish(fewer, nil)
	e.answer()
	if st := s.Status(); st.InUse != len(others) || st.Denied != 0 || !settled(st) {
		t.Errorf("%d in use, %d denied, settled %v; want the %d others", st.InUse, st.Denied, settled(st), len(others))
	}
	s.Publish(xdstest.Node(), nil)
	e.answer()
	if st := s.Status(); st.InUse != 0 || st.Memory != 0 || len(s.uses.services)+len(s.uses.namespaces) != 0 {
		t.Errorf("nothing is left, but %d in use, %d bytes, %v", st.InUse, st.Memory, s.uses)
	}
}

// TestReturnIsAChange: what was removed and comes back is sent at once, and is not
// settled, nor only loading, before it is answered.
func TestReturnIsAChange(t *testing.T) {
	s, _ := startServer(t)
	with := xdstest.Node(xdstest.Web("10.244.1.1"))
	s.Publish(with, nil)
	c := connect(t, s)
	c.ready(s)
	c.subscribe(xds.KindCluster, nil, webName)
	c.expect(xds.KindCluster, []string{webName}, nil)
	s.Publish(with.Bypassing(func(*model.Frontend) string { return "left" }), nil)
	c.expect(xds.KindCluster, nil, []string{webName})
	c.silent()
	s.Publish(with, nil)
	resp := c.next()
	if st := s.Status(); st.Settled || st.Loading {
		t.Errorf("before it is answered: settled %v, loading %v", st.Settled, st.Loading)
	}
	c.check(resp, xds.KindCluster, []string{webName}, nil)
	c.ack(resp, "")
	eventually(t, func() error {
		if st := s.Status(); !st.Settled || !st.Loading {
			return fmt.Errorf("after it: %+v", st)
		}
		return nil
	})
}

// TestUsesFollowBackends: a Service that gains backends takes more memory.
func TestUsesFollowBackends(t *testing.T) {
	s := newTestServer(t, testConfig())
	one, two := xdstest.Node(xdstest.Web("10.244.1.1")), xdstest.Node(xdstest.Web("10.244.1.1", "10.244.1.2"))
	s.Publish(one, nil)
	e := newEnvoy(t, s)
	e.ask(xds.KindCluster, webName, "http HTTP/1.1 "+webName)
	at := netip.MustParseAddrPort(webAddress)
	for _, node := range []*model.Node{one, two, one} {
		s.Publish(node, nil)
		e.answer()
		f, _ := node.Frontend(at)
		uses, _ := s.Uses()
		if len(uses) != 1 || uses[0].Memory != int64(uses[0].clusters)*xds.ClusterMemory(f) {
			t.Errorf("%d backends: %+v", len(f.Backends), uses)
		}
	}
}

// TestCrowdedService: Envoy is given so many frontends of one Service, and no more; those
// of others are not affected. Without a limit of memory, there is none of these either.
func TestCrowdedService(t *testing.T) {
	for name, c := range map[string]struct {
		memory                 int64
		inUse, denied, crowded int
	}{
		"limit":    {256 << 20, maxFrontends + 2, 200 - maxFrontends, 1},
		"no limit": {0, 202, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			node, scanned, others := wide(200, 2)
			cfg := testConfig()
			cfg.ClusterMemory = c.memory
			s := newTestServer(t, cfg)
			s.Publish(node, nil)
			e := newEnvoy(t, s)
			e.ask(xds.KindCluster, scanned...)
			e.ask(xds.KindCluster, others...)
			if st := s.Status(); st.InUse != c.inUse || st.Denied != c.denied || st.Crowded != c.crowded {
				t.Errorf("%d in use, %d denied, %d Services crowded; want %+v", st.InUse, st.Denied, st.Crowded, c)
			}
			s.Publish(xdstest.Node(), nil)
			e.answer()
			if st := s.Status(); st.InUse != 0 || st.Crowded != 0 {
				t.Errorf("nothing is left, but %d in use, %d Services crowded", st.InUse, st.Crowded)
			}
		})
	}
}

// TestRemovalsAreSpread: clusters that go are removed some at a time, after those that
// come, and nobody waits for them.
func TestRemovalsAreSpread(t *testing.T) {
	s, _ := startServer(t)
	node, scanned, others := wide(4*maxLoads, 1)
	s.Publish(node, nil)
	c := connect(t, s)
	c.ready(s)
	c.subscribe(xds.KindCluster, nil, scanned...)
	for range 4 {
		c.ack(c.next(), "")
	}
	c.silent()
	s.Publish(node.Bypassing(func(f *model.Frontend) string {
		if f.Port.Namespace == "scan" {
			return "left"
		}
		return ""
	}), nil)
	first := c.next()
	if _, removed := addedRemoved(first); len(removed) != maxLoads {
		t.Fatalf("%d removed, want %d", len(removed), maxLoads)
	}
	c.subscribe(xds.KindCluster, nil, others...)
	c.silent()
	if st := s.Status(); st.Settled || !st.Loading {
		t.Errorf("with nothing missing but removals: settled %v, loading %v", st.Settled, st.Loading)
	}
	c.ack(first, "")
	got := maxLoads
	for second := true; got < len(scanned); second = false {
		resp := c.next()
		added, removed := addedRemoved(resp)
		if second && !added[others[0]] {
			t.Error("a first call waited for removals")
		}
		got += len(removed)
		c.ack(resp, "")
	}
	c.silent()
}

// TestTwoEnvoys: each has the memory, while one takes over from another.
func TestTwoEnvoys(t *testing.T) {
	node, _, others := wide(0, 100)
	cfg := testConfig()
	cfg.ClusterMemory = 120 * xds.ClusterMemory(node.Frontends[0])
	s := newTestServer(t, cfg)
	s.Publish(node, nil)
	newEnvoy(t, s).ask(xds.KindCluster, others...)
	second := newEnvoy(t, s)
	second.ask(xds.KindCluster, others...)
	if st := s.Status(); st.InUse != 100 || st.Denied != 0 || st.Streams != 2 {
		t.Errorf("%d in use, %d denied, of %d Envoys; want 100 and none", st.InUse, st.Denied, st.Streams)
	}
	s.close(second.session, false)
	if st := s.Status(); st.Memory != 100*xds.ClusterMemory(node.Frontends[0]) {
		t.Errorf("%d bytes once the second is gone", st.Memory)
	}
}

// TestUsesFollowOwners: what is in use counts to the Service that has the address now.
func TestUsesFollowOwners(t *testing.T) {
	s := newTestServer(t, testConfig())
	web := xdstest.Web("10.244.1.1")
	s.Publish(xdstest.Node(web), nil)
	e := newEnvoy(t, s)
	e.ask(xds.KindCluster, webName)
	web.Name = "other"
	s.Publish(xdstest.Node(web), nil)
	e.answer()
	uses, _ := s.Uses()
	if len(uses) != 1 || uses[0].Port.Service != "other" || len(s.uses.services) != 1 || s.uses.memory != uses[0].Memory {
		t.Errorf("%+v, %+v", uses, s.uses)
	}
}
