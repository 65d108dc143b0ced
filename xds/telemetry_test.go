// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

// withTelemetry is a configuration in pod mode in which namespaces choose.
func withTelemetry() Config {
	cfg := podConfig()
	cfg.OTLPEndpoint, cfg.AccessLogOTLP, cfg.TelemetryAnnotations = "otel.observability:4317", true, true
	return cfg
}

// TestTelemetryIsOff: as long as nothing of it is set, Envoy gets what it got without it,
// whatever namespaces say.
func TestTelemetryIsOff(t *testing.T) {
	for _, cfg := range []Config{testConfig(), podConfig()} {
		plain := xdstest.Node(xdstest.Web("10.244.1.1"))
		says := *plain
		says.Telemetry = map[string]model.Telemetry{"shop": {AccessLog: &model.LogFilter{}, Tracing: new(model.Whole)}}
		var texts []string
		for _, node := range []*model.Node{plain, &says} {
			text, err := Render(cfg, node, []model.PodTarget{xdstest.Target("one")})
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, string(text))
		}
		if texts[0] != texts[1] {
			t.Error("what a namespace says changes the configuration")
		}
		for _, word := range []string{"otlp", "tracing", "workload", tracedRoute, "access_log."} {
			if strings.Contains(texts[0], word) {
				t.Errorf("the configuration has %s", word)
			}
		}
	}
}

// TestTelemetryOfNamespaces: what a namespace says changes routes and runtime keys, and no
// listener.
func TestTelemetryOfNamespaces(t *testing.T) {
	cfg, node := withTelemetry(), xdstest.Node()
	target := []model.PodTarget{xdstest.Target("one")}
	before := NewTranslation(cfg, node, target, nil)
	says := *node
	says.Telemetry = map[string]model.Telemetry{"shop": {AccessLog: &model.LogFilter{Errors: true}, Tracing: new(model.Share(500))}}
	after := NewTranslation(cfg, &says, target, before.Listeners())
	if before.Listeners() != after.Listeners() {
		t.Error("the listeners are others")
	}
	for _, l := range []string{"http", "detect"} {
		spec := after.Listeners().ByName[l+"/shop/one/uid-one"]
		if name := spec.RouteName(cfg); name != "http/shop" {
			t.Errorf("%s has the routes %q", l, name)
		}
	}
	version := func(Kind, string) string { return "" }
	routes := func(tr *Translation, name string) []*routev3.Route {
		in := tr.Inputs(KindRoute, name, version)
		if in == nil {
			return nil
		}
		return in.Message(cfg).(*routev3.RouteConfiguration).GetVirtualHosts()[0].GetRoutes()
	}
	plain, traced := routes(before, "http/shop"), routes(after, "http/shop")
	if len(plain) == 0 || len(traced) <= len(plain) || routes(after, "other") != nil {
		t.Fatalf("%d routes, %d with tracing", len(plain), len(traced))
	}
	for i, r := range traced[len(traced)-len(plain):] {
		if !proto.Equal(r, plain[i]) {
			t.Errorf("route %d is another: %v", i, r)
		}
	}
	for i, r := range traced[:len(traced)-len(plain)] {
		if r.GetName() != tracedRoute || r.GetRoute() == nil || len(r.GetMatch().GetHeaders()) < 2 {
			t.Errorf("route %d: %v", i, r)
		}
	}
	if before.Runtime(FlowShares{}).Equal(after.Runtime(FlowShares{})) || !after.Runtime(FlowShares{}).Equal(after.Runtime(FlowShares{})) {
		t.Error("the runtime keys don't follow the namespace")
	}
	keys := fmt.Sprint(after.Runtime(FlowShares{All: 3}).Message(cfg))
	for _, want := range []string{"nodevoy.access_log.shop.errors", "nodevoy.access_log.shop.sample", "nodevoy.access_log.shop.slower", runtimeFlows} {
		if !strings.Contains(keys, want) {
			t.Errorf("no key %s in %s", want, keys)
		}
	}
}

// TestCollectorCluster: a name is resolved, an address isn't, and without a collector there
// is no cluster.
func TestCollectorCluster(t *testing.T) {
	for endpoint, want := range map[string]string{"otel.observability:4317": "STRICT_DNS", "10.0.0.1:4317": "STATIC", "[fd00::1]:4317": "STATIC", "": ""} {
		cfg := testConfig()
		cfg.OTLPEndpoint = endpoint
		_, b := bootstrapOf(t, cfg)
		clusters := b.GetStaticResources().GetClusters()
		if endpoint == "" {
			if len(clusters) != 1 {
				t.Errorf("%d clusters without a collector", len(clusters))
			}
			continue
		}
		if len(clusters) != 2 || clusters[1].GetName() != otlpCluster || clusters[1].GetType().String() != want {
			t.Errorf("%s: %v", endpoint, clusters)
		}
	}
	for _, bad := range []string{"otel", ":4317", "otel:", "otel:0", "otel:99999", "a b:1", "http://otel:4317", "fe80::1%eth0:1", "[fe80::1%eth0]:1", "a/b:1"} {
		if _, _, _, ok := splitEndpoint(bad); ok {
			t.Errorf("%q is taken for an endpoint", bad)
		}
	}
}
