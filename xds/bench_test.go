// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"go.uber.org/zap"
)

// BenchmarkPublish: the endpoints of one Service change, with 10,000 Services
// in the cluster of which some are in use.
func BenchmarkPublish(b *testing.B) {
	var services []testService
	var names []string
	for i := range 10_000 {
		ip := fmt.Sprintf("10.96.%d.%d", i/250, i%250)
		names = append(names, ip+":80")
		services = append(services, testService{name: fmt.Sprintf("web-%d", i), clusterIP: ip, port: 80, pods: []string{"10.244.1.1", "10.244.1.2", "10.244.1.3"}})
	}
	one := testNode(services...)
	services[0].pods = services[0].pods[:2]
	two := testNode(services...)
	for _, used := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("used=%d", used), func(b *testing.B) {
			s, err := NewServer(testConfig(), zap.NewNop())
			if err != nil {
				b.Fatal(err)
			}
			sess, out := s.open(), make(chan cache.DeltaResponse, 16)
			watch := func(names []string) {
				for _, k := range []kind{kindCluster, kindEndpoints} {
					sub := stream.NewDeltaSubscription(names, nil, nil, false)
					req := &cache.DeltaRequest{TypeUrl: k.typeURL(), ResourceNamesSubscribe: names}
					if _, err := sess.CreateDeltaWatch(req, &sub, out); err != nil {
						b.Fatal(err)
					}
				}
				for len(out) > 0 {
					<-out
				}
			}
			s.Publish(one, nil)
			watch(names[:used])
			for i := 0; b.Loop(); i++ {
				watch(nil)
				if i%2 == 0 {
					s.Publish(two, nil)
				} else {
					s.Publish(one, nil)
				}
				if n := len(out); n != 1 {
					b.Fatalf("%d responses, want that of the changed endpoints", n)
				}
			}
		})
	}
}
