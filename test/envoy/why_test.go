// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/nodevoy/nodevoy/agent/envoyadmin"
	"github.com/nodevoy/nodevoy/agent/look"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/why"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/server"
)

// TestWhyAllEjected has Envoy eject every backend of a Service, and wants that to be the
// answer. No setting turns outlier detection on yet: the test adds it to the cluster.
func TestWhyAllEjected(t *testing.T) {
	const address = "10.96.1.10:80"
	node := nodeOf(t, service{"api", address, []string{"10.244.0.1:8081", "10.244.0.2:8081"}})
	node.Pods = []model.Pod{{Namespace: "shop", Name: "client", IPs: []netip.Addr{netip.MustParseAddr("10.244.0.9")}, Enrolled: true, Reason: "own label"}}
	eject := func(name string, m proto.Message) {
		if c, ok := m.(*clusterv3.Cluster); ok && name == http1+address {
			c.OutlierDetection = &clusterv3.OutlierDetection{
				Consecutive_5Xx: wrapperspb.UInt32(2), MaxEjectionPercent: wrapperspb.UInt32(100), BaseEjectionTime: durationpb.New(time.Minute),
			}
		}
	}
	r := newFixtureWith(t, node, setup{options: []server.Option{server.Override(eject)}})
	pair, err := why.Resolve(node, why.Question{From: "shop/client", To: "api:80"})
	if err != nil {
		t.Fatal(err)
	}
	path := xds.Explain(r.cfg, model.PodTarget{}, pair.To.Frontend)
	resource := func(k xds.Kind, name string) why.Resource {
		st := r.server.Standing(k, name)
		return why.Resource{Name: name, Asked: st.Asked, Sent: st.Sent, Acked: st.Acked, Refused: st.Refused}
	}
	explain := func() why.Answer {
		t.Helper()
		proxy, err := look.Envoy(t.Context(), envoyadmin.New(r.cfg.AdminSocket), path.Clusters)
		if err != nil {
			t.Fatal(err)
		}
		return why.Explain(why.Input{
			Now: time.Now(), Model: node, Plan: plan.Compile(node, plan.DefaultConfig()), Mode: plan.HostMode, Agent: why.Agent{Node: "node-a", Redirecting: true},
			XDS:  why.XDS{Connected: true, Listener: resource(xds.KindListener, path.Listener), Clusters: []why.Resource{resource(xds.KindCluster, path.Clusters[0])}},
			Live: &why.Live{KernelErr: "not looked at", Proxy: proxy},
		}, pair)
	}
	if before := explain(); before.Verdict != why.Envoy {
		t.Errorf("before any call: %s: %s", before.Verdict, before.Sentence)
	}
	eventually(t, 10*time.Second, func() error {
		resp, err := http.Get("http://" + address)
		if err != nil {
			return err
		}
		if err := resp.Body.Close(); err != nil {
			return err
		}
		const want = "Calls of shop/client to shop/api:80 (10.96.1.10:80) fail, most likely: Envoy has ejected all 2 backends, as they answered with errors."
		answer := explain()
		if answer.Sentence != want || answer.Verdict != why.Fails {
			return fmt.Errorf("%s: %s", answer.Verdict, answer.Sentence)
		}
		for _, l := range answer.Chain {
			for _, b := range l.Backends {
				if b.Seen == nil || !b.Seen.Ejected || b.Seen.Failed == 0 {
					t.Errorf("backend %s: %+v", b.Address, b.Seen)
				}
			}
		}
		return nil
	})
}
