// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

// cluster is a node with 10,000 Services, and the same with other endpoints of
// the first; names are those of the Services' clusters.
func cluster() (one, two *model.Node, names []string) {
	var services []xdstest.Service
	for i := range 10_000 {
		ip := fmt.Sprintf("10.96.%d.%d", i/250, i%250)
		names = append(names, "HTTP/1.1 "+ip+":80")
		services = append(services, xdstest.Service{Name: fmt.Sprintf("web-%d", i), ClusterIP: ip, Port: 80, Pods: []string{"10.244.1.1", "10.244.1.2", "10.244.1.3"}})
	}
	one = xdstest.Node(services...)
	services[0].Pods = services[0].Pods[:2]
	return one, xdstest.Node(services...), names
}

// user is an Envoy that asks for clusters and their endpoints.
type user struct {
	*session
	b   *testing.B
	out chan cache.DeltaResponse
}

func newUser(b *testing.B, s *Server) *user {
	return &user{session: s.open(), b: b, out: make(chan cache.DeltaResponse, 16)}
}

// watch asks for more names, and takes what comes.
func (u *user) watch(names []string) {
	for _, k := range []xds.Kind{xds.KindCluster, xds.KindEndpoints} {
		sub := stream.NewDeltaSubscription(names, nil, nil, false)
		req := &cache.DeltaRequest{TypeUrl: k.TypeURL(), ResourceNamesSubscribe: names}
		if _, err := u.CreateDeltaWatch(req, &sub, u.out); err != nil {
			u.b.Fatal(err)
		}
	}
	for len(u.out) > 0 {
		<-u.out
	}
}

func newBenchServer(b *testing.B, cfg xds.Config) *Server {
	s, err := New(cfg, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkPublish: the endpoints of one Service change, with 10,000 Services
// in the cluster of which some are in use.
func BenchmarkPublish(b *testing.B) {
	one, two, names := cluster()
	for _, used := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("used=%d", used), func(b *testing.B) {
			s := newBenchServer(b, testConfig())
			u := newUser(b, s)
			s.Publish(one, nil)
			u.watch(names[:used])
			for i := 0; b.Loop(); i++ {
				u.watch(nil)
				if i%2 == 0 {
					s.Publish(two, nil)
				} else {
					s.Publish(one, nil)
				}
				if n := len(u.out); n != 1 {
					b.Fatalf("%d responses, want that of the changed endpoints", n)
				}
			}
		})
	}
}

// BenchmarkStatus: what the agent's loop asks for again and again, however many
// names are in use.
func BenchmarkStatus(b *testing.B) {
	one, _, names := cluster()
	for _, used := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("used=%d", used), func(b *testing.B) {
			s := newBenchServer(b, testConfig())
			u := newUser(b, s)
			s.Publish(one, nil)
			u.watch(names[:used])
			b.ReportAllocs()
			for b.Loop() {
				if st := s.Status(); st.InUse != used {
					b.Fatalf("%d in use, want %d", st.InUse, used)
				}
			}
		})
	}
}

// BenchmarkPublishTargets: a hundred pods, of which one comes and goes, or
// none.
func BenchmarkPublishTargets(b *testing.B) {
	var targets []model.PodTarget
	for i := range 100 {
		targets = append(targets, xdstest.Target(fmt.Sprintf("pod-%d", i)))
	}
	for name, other := range map[string][]model.PodTarget{"same": targets, "one": targets[1:], "all": nil} {
		b.Run(name, func(b *testing.B) {
			s := newBenchServer(b, podConfig())
			node := xdstest.Node(xdstest.Web("10.244.1.1"))
			sess, out := s.open(), make(chan cache.DeltaResponse, 16)
			watch := func() {
				sub := stream.NewDeltaSubscription(nil, nil, nil, true)
				if _, err := sess.CreateDeltaWatch(&cache.DeltaRequest{TypeUrl: xds.KindListener.TypeURL()}, &sub, out); err != nil {
					b.Fatal(err)
				}
				for len(out) > 0 {
					<-out
				}
			}
			s.Publish(node, targets)
			watch()
			for i := 0; b.Loop(); i++ {
				watch()
				s.Publish(node, [][]model.PodTarget{other, targets}[i%2])
			}
		})
	}
}
