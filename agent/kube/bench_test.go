// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
)

// BenchmarkChange is one EndpointSlice event and the inputs after it, where
// there are 10,000 slices of 10 endpoints. "heartbeat" changes nothing.
func BenchmarkChange(b *testing.B) {
	const slices, each = 10_000, 10
	slice := func(i int, ready bool) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("web-%05d", i), Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(80))}},
		}
		for e := range each {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{fmt.Sprintf("10.1.%d.%d", i%250, e)}, NodeName: new("node-1"), Zone: new("zone-a"),
				Conditions: discoveryv1.EndpointConditions{Ready: new(ready), Serving: new(true), Terminating: new(false)},
				TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("web-%d", e)},
			})
		}
		return s
	}
	var kind kinds.Kind
	for _, k := range kinds.All() {
		if k.Kind == "EndpointSlice" {
			kind = k
		}
	}
	for _, test := range []struct {
		name   string
		toggle bool
	}{{"change", true}, {"heartbeat", false}} {
		b.Run(test.name, func(b *testing.B) {
			s := newStore(kind, "node-1", kinds.NewInterner(), func() {})
			for i := range slices {
				if err := s.Add(slice(i, true)); err != nil {
					b.Fatal(err)
				}
			}
			events := []*discoveryv1.EndpointSlice{slice(77, !test.toggle), slice(77, true)}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := s.Update(events[i%2]); err != nil {
					b.Fatal(err)
				}
				var inputs model.Inputs
				s.addTo(&inputs)
				if len(inputs.EndpointSlices) != slices {
					b.Fatalf("%d slices", len(inputs.EndpointSlices))
				}
			}
		})
	}
}
