// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// cluster makes inputs of many Services, ten endpoints each, and a node with
// one hundred pods.
func cluster(services int) model.Inputs {
	in := model.Inputs{NodeName: "node-1"}
	in.Namespaces = append(in.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "shop", Labels: map[string]string{model.RedirectLabel: model.RedirectEnabled},
	}})
	for i := range 100 {
		in.Pods = append(in.Pods, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("client-%d", i)},
			Spec:       corev1.PodSpec{NodeName: "node-1"},
			Status: corev1.PodStatus{
				Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.1.0.%d", i+1)}},
			},
		})
	}
	name, port := "http", int32(8080)
	for i := range services {
		svc := fmt.Sprintf("svc-%05d", i)
		in.Services = append(in.Services, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: svc},
			Spec: corev1.ServiceSpec{
				ClusterIP: fmt.Sprintf("10.96.%d.%d", i/250, i%250+1),
				Ports:     []corev1.ServicePort{{Name: name, Port: 80}},
			},
		})
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: svc + "-a", Labels: map[string]string{discoveryv1.LabelServiceName: svc},
			},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		}
		for e := range 10 {
			node, zone := fmt.Sprintf("node-%d", (i+e)%200), fmt.Sprintf("zone-%d", e%3)
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 100+(i/2500)%100, (i/10)%250, (i%10)*10+e+1)},
				NodeName:  &node, Zone: &zone,
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("%s-%d", svc, e)},
			})
		}
		in.EndpointSlices = append(in.EndpointSlices, slice)
	}
	return in
}

func BenchmarkBuild(b *testing.B) {
	for _, services := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			in := cluster(services)
			opts := model.DefaultOptions()
			b.ReportAllocs()
			for b.Loop() {
				if n := model.Build(in, opts); len(n.Frontends) != services {
					b.Fatalf("want %d frontends, got %d", services, len(n.Frontends))
				}
			}
		})
	}
}

// BenchmarkBuilder is a round in which one EndpointSlice changed. A source lists
// objects in any order.
func BenchmarkBuilder(b *testing.B) {
	for _, services := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			in := cluster(services)
			rand.Shuffle(services, func(i, j int) { in.Services[i], in.Services[j] = in.Services[j], in.Services[i] })
			rand.Shuffle(services, func(i, j int) {
				in.EndpointSlices[i], in.EndpointSlices[j] = in.EndpointSlices[j], in.EndpointSlices[i]
			})
			builder := model.NewBuilder(model.DefaultOptions())
			builder.Build(in)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				slice := *in.EndpointSlices[i%services]
				in.EndpointSlices[i%services] = &slice
				if n := builder.Build(in); len(n.Frontends) != services {
					b.Fatalf("want %d frontends, got %d", services, len(n.Frontends))
				}
			}
		})
	}
}
