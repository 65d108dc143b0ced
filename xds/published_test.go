// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// testService is a Service in namespace shop with ready pods behind it, whose
// port is named "main" or, if unnamed is set, not at all.
type testService struct {
	name, clusterIP string
	port            int32
	pods            []string
	labels          map[string]string
	unnamed         bool
}

// testNode builds a node that has these Services.
func testNode(services ...testService) *model.Node {
	in := model.Inputs{NodeName: "node-a"}
	in.Namespaces = []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}
	for _, s := range services {
		name, target, tcp, yes := "main", int32(8080), corev1.ProtocolTCP, true
		if s.unnamed {
			name = ""
		}
		family, kind := corev1.IPv4Protocol, discoveryv1.AddressTypeIPv4
		if bytes.ContainsRune([]byte(s.clusterIP), ':') {
			family, kind = corev1.IPv6Protocol, discoveryv1.AddressTypeIPv6
		}
		in.Services = append(in.Services, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: s.name, Labels: s.labels},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeClusterIP, ClusterIP: s.clusterIP, ClusterIPs: []string{s.clusterIP},
				IPFamilies: []corev1.IPFamily{family},
				Ports:      []corev1.ServicePort{{Name: name, Protocol: tcp, Port: s.port}},
			},
		})
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: s.name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: s.name}},
			AddressType: kind,
			Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &target, Protocol: &tcp}},
		}
		for i, ip := range s.pods {
			zone, node := string(rune('a'+i%2)), fmt.Sprintf("node-%d", i)
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{ip}, Zone: &zone, NodeName: &node,
				Conditions: discoveryv1.EndpointConditions{Ready: &yes},
				TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("%s-%d", s.name, i)},
			})
		}
		in.EndpointSlices = append(in.EndpointSlices, slice)
	}
	return model.Build(in, model.DefaultOptions())
}

func web(pods ...string) testService {
	return testService{name: "web", clusterIP: "10.96.0.10", port: 80, pods: pods}
}

// golden compares with a file of testdata, or writes it if told -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (-update writes it)", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestGoldens(t *testing.T) {
	text, err := Bootstrap(testConfig())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "bootstrap.yaml", text)

	node := testNode(
		web("10.244.1.1", "10.244.2.1", "10.244.1.2"),
		testService{name: "empty", clusterIP: "10.96.0.11", port: 81, unnamed: true},
		testService{name: "six", clusterIP: "fd00::10", port: 80, pods: []string{"fd00:244::1"}},
		testService{name: "out", clusterIP: "10.96.0.12", port: 80, pods: []string{"10.244.1.3"}, labels: map[string]string{"nodevoy.io/redirect": "disabled"}},
	)
	text, err = Render(testConfig(), node, nil)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "render.yaml", text)
	again, err := Render(testConfig(), node, nil)
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("rendered twice: %v, not the same", err)
	}

	other := testConfig()
	other.Transparent, other.AccessLog, other.Address6 = true, AccessLogJSON, netip.Addr{}
	text, err = Render(other, testNode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "render-tproxy-json.yaml", text)
}

func TestRenderRefusesBadConfiguration(t *testing.T) {
	if _, err := Render(Config{}, testNode(), nil); err == nil {
		t.Error("Render takes an empty configuration")
	}
	if _, err := Bootstrap(Config{}); err == nil {
		t.Error("Bootstrap takes an empty configuration")
	}
}

// TestNothingIsMadeUnasked: publishing makes no resource of any Service.
func TestNothingIsMadeUnasked(t *testing.T) {
	p := newPublished(testConfig(), testNode(web("10.244.1.1")), nil, nil)
	for k := range p.made {
		if n := len(p.made[k]); n > 0 {
			t.Errorf("%d of kind %s are made", n, kind(k))
		}
	}
	for range 3 {
		if r := p.resource(kindCluster, "10.96.0.99:80"); r != nil {
			t.Fatalf("an unknown name is %+v", r)
		}
	}
	if n := len(p.made[kindCluster]); n > 0 {
		t.Errorf("%d unknown names are remembered", n)
	}
}

// TestCarriedOver: what does not change is not made again, and what does is.
func TestCarriedOver(t *testing.T) {
	const name = "10.96.0.10:80"
	first := newPublished(testConfig(), testNode(web("10.244.1.1")), nil, nil)
	cluster, endpoints := first.resource(kindCluster, name), first.resource(kindEndpoints, name)

	same := newPublished(testConfig(), testNode(web("10.244.1.1")), nil, first)
	if r := same.resource(kindCluster, name); r.body != cluster.body {
		t.Error("an unchanged cluster is made again")
	}
	if r := same.resource(kindEndpoints, name); r.body != endpoints.body {
		t.Error("an unchanged assignment is made again")
	}
	if same.resource(kindCluster, name).frontend == cluster.frontend {
		t.Error("what is carried over holds on to the node before")
	}

	grown := newPublished(testConfig(), testNode(web("10.244.1.1", "10.244.1.2")), nil, same)
	if r := grown.resource(kindCluster, name); r.version != cluster.version {
		t.Error("a cluster changes with its backends")
	}
	if r := grown.resource(kindEndpoints, name); r.version == endpoints.version {
		t.Error("an assignment does not change with its backends")
	}

	renamed := web("10.244.1.1")
	renamed.name = "shop"
	other := newPublished(testConfig(), testNode(renamed), nil, first)
	if r := other.resource(kindCluster, name); r.version == cluster.version {
		t.Error("a cluster does not change with its Service")
	}
	gone := newPublished(testConfig(), testNode(), nil, other)
	if r := gone.resource(kindCluster, name); r != nil {
		t.Errorf("the cluster of a Service that is gone: %+v", r)
	}
	if r := gone.resource(kindEndpoints, name); r != nil {
		t.Errorf("the assignment of a Service that is gone: %+v", r)
	}
}

// TestAssignmentFollowsCluster: a cluster that changes changes its assignment.
func TestAssignmentFollowsCluster(t *testing.T) {
	const name = "10.96.0.10:80"
	for _, pods := range [][]string{nil, {"10.244.1.1"}} {
		cfg := testConfig()
		one := newPublished(cfg, testNode(web(pods...)), nil, nil).resource(kindEndpoints, name)
		cfg.ConnectTimeout++
		two := newPublished(cfg, testNode(web(pods...)), nil, nil).resource(kindEndpoints, name)
		if one.version == two.version {
			t.Errorf("with %d pods: the assignment is the same for two clusters", len(pods))
		}
	}
}

// TestListenersDoNotFollowServices: neither they nor the routes change with
// what the node has.
func TestListenersDoNotFollowServices(t *testing.T) {
	one := newPublished(testConfig(), testNode(), nil, nil)
	two := newPublished(testConfig(), testNode(web("10.244.1.1")), nil, nil)
	for _, name := range one.sites.names {
		if one.resource(kindListener, name).version != two.resource(kindListener, name).version {
			t.Errorf("listener %s changes", name)
		}
	}
	if one.resource(kindRoute, routeName).version != two.resource(kindRoute, routeName).version {
		t.Error("the routes change")
	}
}

// TestBadText: what a user wrote that is not UTF-8 stops nothing.
func TestBadText(*testing.T) {
	bad := "\xff\xfe"
	f := &model.Frontend{
		Port:     model.ServicePort{Namespace: bad, Service: bad, PortName: bad},
		Backends: []model.Backend{{Namespace: bad, Pod: bad, Node: bad, Zone: bad}},
	}
	pack(Cluster(testConfig(), f))
	pack(Assignment(f, "v"))
}
