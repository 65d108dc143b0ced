// SPDX-License-Identifier: Apache-2.0

package server

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

// zoned is a translation in which resources of one kind also depend on the
// node's zone, as they may one day depend on a policy.
type zoned struct {
	translation
	kind xds.Kind
	zone string
}

func (z zoned) Inputs(k xds.Kind, name string, version func(xds.Kind, string) string) xds.Inputs {
	in := z.translation.Inputs(k, name, version)
	if in == nil || k != z.kind {
		return in
	}
	return zonedInputs{Inputs: in, zone: z.zone}
}

type zonedInputs struct {
	xds.Inputs
	zone string
}

func (in zonedInputs) Equal(other xds.Inputs) bool {
	o, ok := other.(zonedInputs)
	return ok && in.zone == o.zone && in.Inputs.Equal(o.Inputs)
}

func (in zonedInputs) Message(cfg xds.Config) proto.Message {
	m := in.Inputs.Message(cfg)
	switch m := m.(type) {
	case *clusterv3.Cluster:
		m.AltStatName = in.zone
	case *endpointv3.ClusterLoadAssignment:
		m.Endpoints[0].Locality.SubZone = in.zone
	case *listenerv3.Listener:
		m.StatPrefix = in.zone
	case *routev3.RouteConfiguration:
		m.VirtualHosts[0].Name = in.zone
	}
	return m
}

// TestEveryInputCounts: whatever a resource is made of, a change of it reaches
// Envoy, and nothing else is sent.
func TestEveryInputCounts(t *testing.T) {
	services, names := webs(2)
	all := map[xds.Kind][]string{
		xds.KindCluster: names, xds.KindEndpoints: names, xds.KindRoute: {xds.RouteName},
		xds.KindListener: {"detect-v4", "detect-v6", "http-v4", "http-v6", "tcp-v4", "tcp-v6"},
	}
	for kind, want := range all {
		t.Run(kind.String(), func(t *testing.T) {
			s := newTestServer(t, testConfig(), func(s *Server) {
				inner := s.translate
				s.translate = func(node *model.Node, targets []model.PodTarget, before *xds.ListenerSpecs) translation {
					return zoned{translation: inner(node, targets, before), kind: kind, zone: node.Zone}
				}
			})
			in := func(zone string) *model.Node {
				node := xdstest.Node(services...)
				node.Zone = zone
				return node
			}
			s.Publish(in("a"), nil)
			e := newEnvoy(t, s)
			e.ask(xds.KindListener)
			e.ask(xds.KindRoute, xds.RouteName)
			e.ask(xds.KindCluster, names...)
			e.ask(xds.KindEndpoints, names...)
			publish := func(zone string) (sent map[xds.Kind]int) {
				for k := range all {
					e.took(k)
				}
				s.Publish(in(zone), nil)
				e.answer()
				sent = map[xds.Kind]int{}
				for k := range all {
					for _, names := range e.took(k) {
						sent[k] += len(names)
					}
				}
				return sent
			}
			sent := publish("b")
			for k, n := range sent {
				// An assignment follows each cluster.
				if follows := k == xds.KindEndpoints && kind == xds.KindCluster; k != kind && n > 0 && !follows {
					t.Errorf("%d of kind %s are sent, too", n, k)
				}
			}
			if sent[kind] != len(want) {
				t.Errorf("%d of kind %s are sent after a change, want %d", sent[kind], kind, len(want))
			}
			for k, n := range publish("b") {
				if n > 0 {
					t.Errorf("%d of kind %s are sent though nothing changed", n, k)
				}
			}
		})
	}
}
