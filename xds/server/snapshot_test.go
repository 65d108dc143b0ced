// SPDX-License-Identifier: Apache-2.0

package server

import (
	"runtime"
	"strings"
	"testing"
	"weak"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

// take makes a snapshot; before may be nil.
func take(cfg xds.Config, node *model.Node, targets []model.PodTarget, before *snapshot) *snapshot {
	if before == nil {
		before = &snapshot{}
	}
	return newSnapshot(cfg, xds.NewTranslation(cfg, node, targets, nil), before.made)
}

// TestNothingIsMadeUnasked: publishing makes no resource of any Service.
func TestNothingIsMadeUnasked(t *testing.T) {
	p := take(testConfig(), xdstest.Node(xdstest.Web("10.244.1.1")), nil, nil)
	for k := range p.made {
		if n := len(p.made[k]); n > 0 {
			t.Errorf("%d of kind %s are made", n, xds.Kind(k))
		}
	}
	for range 3 {
		if r := p.resource(xds.KindCluster, "HTTP/1.1 10.96.0.99:80"); r != nil {
			t.Fatalf("an unknown name is %+v", r)
		}
	}
	if n := len(p.made[xds.KindCluster]); n > 0 {
		t.Errorf("%d unknown names are remembered", n)
	}
}

// TestCarriedOver: what does not change is not made again, and what does is.
func TestCarriedOver(t *testing.T) {
	const name = "HTTP/1.1 10.96.0.10:80"
	first := take(testConfig(), xdstest.Node(xdstest.Web("10.244.1.1")), nil, nil)
	cluster, endpoints := first.resource(xds.KindCluster, name), first.resource(xds.KindEndpoints, name)

	same := take(testConfig(), xdstest.Node(xdstest.Web("10.244.1.1")), nil, first)
	if r := same.resource(xds.KindCluster, name); r.Body != cluster.Body {
		t.Error("an unchanged cluster is made again")
	}
	if r := same.resource(xds.KindEndpoints, name); r.Body != endpoints.Body {
		t.Error("an unchanged assignment is made again")
	}

	grown := take(testConfig(), xdstest.Node(xdstest.Web("10.244.1.1", "10.244.1.2")), nil, same)
	if r := grown.resource(xds.KindCluster, name); r.Version != cluster.Version {
		t.Error("a cluster changes with its backends")
	}
	if r := grown.resource(xds.KindEndpoints, name); r.Version == endpoints.Version {
		t.Error("an assignment does not change with its backends")
	}

	renamed := xdstest.Web("10.244.1.1")
	renamed.Name = "shop"
	other := take(testConfig(), xdstest.Node(renamed), nil, first)
	if r := other.resource(xds.KindCluster, name); r.Version == cluster.Version {
		t.Error("a cluster does not change with its Service")
	}
	gone := take(testConfig(), xdstest.Node(), nil, other)
	if r := gone.resource(xds.KindCluster, name); r != nil {
		t.Errorf("the cluster of a Service that is gone: %+v", r)
	}
	if r := gone.resource(xds.KindEndpoints, name); r != nil {
		t.Errorf("the assignment of a Service that is gone: %+v", r)
	}
}

// TestNodeIsReleased: a resource that is carried over has no reference to the
// node before.
func TestNodeIsReleased(t *testing.T) {
	const name = "HTTP/1.1 10.96.0.10:80"
	old := xdstest.Node(xdstest.Web("10.244.1.1"))
	backend := weak.Make(&old.Frontends[0].Backends[0])
	first := take(testConfig(), old, nil, nil)
	first.resource(xds.KindEndpoints, name)
	same := take(testConfig(), xdstest.Node(xdstest.Web("10.244.1.1")), nil, first)
	same.resource(xds.KindEndpoints, name)
	same.before = resources{}
	runtime.GC()
	if backend.Value() != nil {
		t.Error("the node before is still referenced")
	}
	runtime.KeepAlive(same)
}

// TestAssignmentFollowsCluster: a cluster that changes changes its assignment.
func TestAssignmentFollowsCluster(t *testing.T) {
	const name = "HTTP/1.1 10.96.0.10:80"
	for _, pods := range [][]string{nil, {"10.244.1.1"}} {
		cfg := testConfig()
		one := take(cfg, xdstest.Node(xdstest.Web(pods...)), nil, nil).resource(xds.KindEndpoints, name)
		cfg.ConnectTimeout++
		two := take(cfg, xdstest.Node(xdstest.Web(pods...)), nil, nil).resource(xds.KindEndpoints, name)
		if one.Version == two.Version {
			t.Errorf("with %d pods: the assignment is the same for two clusters", len(pods))
		}
	}
}

// TestListenersDoNotFollowServices: neither they nor the routes change with
// what the node has.
func TestListenersDoNotFollowServices(t *testing.T) {
	one := take(testConfig(), xdstest.Node(), nil, nil)
	two := take(testConfig(), xdstest.Node(xdstest.Web("10.244.1.1")), nil, nil)
	for _, name := range one.Listeners().Names {
		if one.resource(xds.KindListener, name).Version != two.resource(xds.KindListener, name).Version {
			t.Errorf("listener %s changes", name)
		}
	}
	if one.resource(xds.KindRoute, xds.RouteName).Version != two.resource(xds.KindRoute, xds.RouteName).Version {
		t.Error("the routes change")
	}
}

// TestListenersCarriedOver: the listeners of a pod that stays are not made
// again, whatever else changes.
func TestListenersCarriedOver(t *testing.T) {
	one, two := xdstest.Target("one"), xdstest.Target("two")
	first := take(podConfig(), xdstest.Node(), []model.PodTarget{one, two}, nil)
	before := map[string]*resource{}
	for _, name := range first.Listeners().Names {
		before[name] = first.resource(xds.KindListener, name)
	}
	same := take(podConfig(), xdstest.Node(xdstest.Web("10.244.1.1")), []model.PodTarget{one, two}, first)
	for name, r := range before {
		if same.resource(xds.KindListener, name).Body != r.Body {
			t.Errorf("%s is made again for the same pods", name)
		}
	}
	less := take(podConfig(), xdstest.Node(), []model.PodTarget{two}, same)
	if r := less.resource(xds.KindListener, "tcp/shop/one/uid-one"); r != nil {
		t.Errorf("a pod that is gone has %+v", r)
	}
	for _, name := range less.Listeners().Names {
		if less.resource(xds.KindListener, name).Body != before[name].Body {
			t.Errorf("%s is made again", name)
		}
	}
	two.Netns = "/run/netns/other"
	moved := take(podConfig(), xdstest.Node(), []model.PodTarget{one, two}, less)
	for _, name := range moved.Listeners().Names {
		if moved.resource(xds.KindListener, name).Version == before[name].Version != strings.Contains(name, "one") {
			t.Errorf("%s: want it changed only if its pod is", name)
		}
	}
}
