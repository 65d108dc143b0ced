// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nodevoy/nodevoy/agent/why"
)

// BenchmarkExplain answers in a cluster of 10,000 Services of ten endpoints.
func BenchmarkExplain(b *testing.B) {
	s := calm()
	for i := range 10_000 {
		svc := fmt.Sprintf("svc-%d", i)
		s.objects.Services = append(s.objects.Services, &corev1.Service{})
		last := s.objects.Services[len(s.objects.Services)-1]
		last.Namespace, last.Name = "big", svc
		last.Spec = corev1.ServiceSpec{ClusterIP: fmt.Sprintf("10.97.%d.%d", i/250, i%250+1), Ports: []corev1.ServicePort{port("http", 80, "http")}}
		slice := &discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}}}
		slice.Namespace, slice.Name, slice.Labels = "big", svc+"-1", map[string]string{discoveryv1.LabelServiceName: svc}
		for j := range 10 {
			slice.Endpoints = append(slice.Endpoints, ready(fmt.Sprintf("10.%d.%d.%d", 100+j, i/250, i%250+1), svc, "node-b"))
		}
		s.objects.EndpointSlices = append(s.objects.EndpointSlices, slice)
	}
	in := s.in()
	for _, q := range []why.Question{{From: "shop/client", To: "big/svc-9999:80"}, {From: "shop/client", To: "big/svc-99999:80"}, {From: "shop/nobody", To: "10.109.0.1:80"}} {
		b.Run(q.To, func(b *testing.B) {
			for b.Loop() {
				pair, err := why.Resolve(in.Model, q)
				if err != nil {
					b.Fatal(err)
				}
				if answer := why.Explain(in, pair); answer.Sentence == "" {
					b.Fatal(answer)
				}
			}
		})
	}
}
