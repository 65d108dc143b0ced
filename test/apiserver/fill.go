// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// writers is how many objects Fill creates at a time.
const writers = 64

// Fill creates a namespace "fill" with this many Services, and for each an
// EndpointSlice with this many ready endpoints, that no pod is behind.
func (s *Server) Fill(t testing.TB, services, endpoints int) {
	t.Helper()
	client, ctx := s.Client(t), t.Context()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "fill"}}
	if _, err := client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create namespace fill: %v", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := range services {
		group.Go(func() error { return fillOne(ctx, client, i, endpoints) })
	}
	if err := group.Wait(); err != nil {
		t.Fatalf("fill: %v", err)
	}
}

// fillOne creates the Service of this number and its endpoints.
func fillOne(ctx context.Context, client kubernetes.Interface, number, endpoints int) error {
	name := fmt.Sprintf("service-%05d", number)
	protocol, ready := corev1.ProtocolTCP, true
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "fill", Name: name},
		Spec: corev1.ServiceSpec{
			ClusterIP: address(netip.AddrFrom4([4]byte{10, 96, 16, 0}), number),
			Ports:     []corev1.ServicePort{{Name: "http", Port: 80, Protocol: protocol}},
		},
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "fill", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: &protocol}},
	}
	for i := range endpoints {
		pod := number*endpoints + i
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{address(netip.AddrFrom4([4]byte{10, 128, 0, 1}), pod)},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready},
			NodeName:   new(fmt.Sprintf("elsewhere-%d", pod%500)),
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "fill", Name: fmt.Sprintf("%s-%d", name, i)},
		})
	}
	if _, err := client.CoreV1().Services("fill").Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	if _, err := client.DiscoveryV1().EndpointSlices("fill").Create(ctx, slice, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create endpoints of %s: %w", name, err)
	}
	return nil
}

// address is the nth address after the first.
func address(first netip.Addr, n int) string {
	b := first.As4()
	n += int(b[3]) + int(b[2])<<8 + int(b[1])<<16
	return netip.AddrFrom4([4]byte{b[0], byte(n >> 16), byte(n >> 8), byte(n)}).String()
}
