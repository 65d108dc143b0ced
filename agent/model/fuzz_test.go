// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodevoy/nodevoy/agent/model"
)

// FuzzBuild makes objects out of bytes. The vocabularies are small, so that
// names, addresses and ports collide, and half of them is wrong.
func FuzzBuild(f *testing.F) {
	f.Add([]byte{})
	for seed := range byte(8) {
		data := make([]byte, 400)
		for i := range data {
			data[i] = byte(i*31) ^ byte(i>>3)*(seed*2+1)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := (&bytesToObjects{data}).inputs()
		opts := model.DefaultOptions()
		node := model.Build(in, opts)
		if err := consistent(node); err != nil {
			t.Fatalf("inconsistent node: %v", err)
		}
		slices.Reverse(in.Services)
		slices.Reverse(in.Pods)
		slices.Reverse(in.EndpointSlices)
		slices.Reverse(in.Namespaces)
		if diff := cmp.Diff(node, model.Build(in, opts),
			append(noEmpty, cmpopts.IgnoreUnexported(model.Node{}))...); diff != "" {
			t.Fatalf("another order gave another node:\n%s", diff)
		}
	})
}

// consistent checks what must hold of every node, whatever it was built from.
func consistent(node *model.Node) error {
	for i, f := range node.Frontends {
		if i > 0 && node.Frontends[i-1].Address.Compare(f.Address) >= 0 {
			return fmt.Errorf("frontend %s follows %s", f.Address, node.Frontends[i-1].Address)
		}
		if found, ok := node.Frontend(f.Address); !ok || found != f {
			return fmt.Errorf("frontend %s is not found", f.Address)
		}
		if f.Bypass != "" && len(f.Backends) > 0 || f.ClassReason == "" || f.Address.Port() == 0 {
			return fmt.Errorf("frontend %+v", f)
		}
		for j, b := range f.Backends {
			if j > 0 && f.Backends[j-1].Address.Compare(b.Address) >= 0 {
				return fmt.Errorf("backend %s follows %s", b.Address, f.Backends[j-1].Address)
			}
			if b.Address.Addr().Is6() != f.Address.Addr().Is6() || b.Address.Port() == 0 {
				return fmt.Errorf("backend %s of frontend %s", b.Address, f.Address)
			}
			if b.Terminating != f.Backends[0].Terminating {
				return fmt.Errorf("frontend %s mixes ready and terminating backends", f.Address)
			}
		}
	}
	owner := map[netip.Addr]string{}
	for _, p := range node.Pods {
		if p.Reason == "" || p.Enrolled && len(p.IPs) == 0 {
			return fmt.Errorf("pod %+v", p)
		}
		for _, ip := range p.IPs {
			if other, ok := owner[ip]; ok {
				return fmt.Errorf("%s belongs to %s and to %s", ip, other, p.Name)
			}
			owner[ip] = p.Name
		}
	}
	return nil
}

// bytesToObjects spends bytes on decisions; when there are none left, all
// decisions are the first.
type bytesToObjects struct{ data []byte }

func (b *bytesToObjects) n(limit int) int {
	if len(b.data) == 0 {
		return 0
	}
	n := int(b.data[0])
	b.data = b.data[1:]
	return n % limit
}

func pick[T any](b *bytesToObjects, from ...T) T { return from[b.n(len(from))] }

func several[T any](b *bytesToObjects, limit int, one func() T) []T {
	var list []T
	for range b.n(limit + 1) {
		list = append(list, one())
	}
	return list
}

func (b *bytesToObjects) ip() string {
	return pick(b, "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2", "", "None", "127.0.0.1", "::ffff:10.0.0.1",
		"fe80::1%eth0", "224.0.0.1", "garbage", "0.0.0.0", "192.0.2.1")
}

func (b *bytesToObjects) meta(uid int) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		// Real caches hold each name once; so does this one, by the UID's name.
		Namespace: pick(b, "shop", "default", "kube-system", ""), Name: fmt.Sprintf("o%d", uid), UID: types.UID(fmt.Sprint(uid)),
		CreationTimestamp: pick(b, metav1.Time{}, created(1), created(2)),
		Labels: map[string]string{
			model.RedirectLabel:          pick(b, "enabled", "disabled", "", "yes"),
			discoveryv1.LabelServiceName: pick(b, "o0", "o1", "o2", ""),
		},
	}
	if b.n(4) == 1 {
		m.DeletionTimestamp = new(created(3))
	}
	return m
}

func (b *bytesToObjects) inputs() model.Inputs {
	in := model.Inputs{NodeName: nodeName}
	if b.n(2) == 1 {
		in.Node = zoned()
		in.Node.Status.Addresses = []corev1.NodeAddress{{Address: b.ip()}}
	}
	in.Namespaces = several(b, 2, func() *corev1.Namespace { return namespace(pick(b, "shop", "default"), "enabled") })
	in.Pods = several(b, 4, func() *corev1.Pod { return b.pod(len(b.data)) })
	in.Services = several(b, 4, func() *corev1.Service { return b.service(b.n(3)) })
	// One Service of each name in a namespace, as in any cache.
	slices.SortStableFunc(in.Services, func(x, y *corev1.Service) int {
		return slices.Compare([]string{x.Namespace, x.Name}, []string{y.Namespace, y.Name})
	})
	in.Services = slices.CompactFunc(in.Services, func(x, y *corev1.Service) bool {
		return x.Namespace == y.Namespace && x.Name == y.Name
	})
	in.EndpointSlices = several(b, 4, func() *discoveryv1.EndpointSlice { return b.slice(len(b.data)) })
	return in
}

func (b *bytesToObjects) pod(uid int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: b.meta(uid),
		Spec: corev1.PodSpec{
			NodeName: pick(b, nodeName, nodeName, "node-2"), HostNetwork: b.n(5) == 1,
			Containers: named(several(b, 2, func() string { return pick(b, "main", "istio-proxy", "") })),
		},
		Status: corev1.PodStatus{
			Phase: pick(b, corev1.PodRunning, corev1.PodPending, corev1.PodSucceeded, ""), PodIP: b.ip(),
			PodIPs: several(b, 3, func() corev1.PodIP { return corev1.PodIP{IP: b.ip()} }),
		},
	}
}

func (b *bytesToObjects) service(uid int) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: b.meta(uid),
		Spec: corev1.ServiceSpec{
			Type:                     pick(b, "", corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName),
			ClusterIP:                b.ip(),
			ClusterIPs:               several(b, 2, b.ip),
			ExternalIPs:              several(b, 2, b.ip),
			SessionAffinity:          pick(b, "", corev1.ServiceAffinityClientIP),
			LoadBalancerSourceRanges: several(b, 1, b.ip),
			InternalTrafficPolicy: pick(b, nil, new(corev1.ServiceInternalTrafficPolicyLocal),
				new(corev1.ServiceInternalTrafficPolicyCluster)),
			Ports: several(b, 3, func() corev1.ServicePort {
				return corev1.ServicePort{
					Name: pick(b, "http", "tcp", ""), Port: pick(b, int32(80), 81, 0, -1, 1<<20),
					Protocol:    pick(b, corev1.ProtocolTCP, "", corev1.ProtocolUDP),
					AppProtocol: pick(b, nil, new("http"), new("")),
				}
			}),
		},
		Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{
			Ingress: several(b, 2, func() corev1.LoadBalancerIngress {
				return corev1.LoadBalancerIngress{IP: b.ip(), IPMode: pick(b, nil, new(corev1.LoadBalancerIPModeProxy))}
			}),
		}},
	}
}

func (b *bytesToObjects) slice(uid int) *discoveryv1.EndpointSlice {
	condition := func() *bool { return pick(b, nil, new(true), new(false)) }
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  b.meta(uid),
		AddressType: pick(b, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, "", discoveryv1.AddressTypeFQDN),
		Ports: several(b, 3, func() discoveryv1.EndpointPort {
			return discoveryv1.EndpointPort{
				Name: pick(b, new("http"), nil, new("tcp")), Port: pick(b, new(int32(8080)), nil, new(int32(0)), new(int32(1<<20))),
			}
		}),
		Endpoints: several(b, 4, func() discoveryv1.Endpoint {
			return discoveryv1.Endpoint{
				Addresses:  several(b, 2, b.ip),
				Conditions: discoveryv1.EndpointConditions{Ready: condition(), Serving: condition(), Terminating: condition()},
				NodeName:   pick(b, nil, new(nodeName), new("node-2")),
				TargetRef:  pick(b, nil, &corev1.ObjectReference{Kind: "Pod", Name: "p"}),
				Hints: pick(b, nil, &discoveryv1.EndpointHints{}, &discoveryv1.EndpointHints{
					ForZones: []discoveryv1.ForZone{{Name: "zone-a"}}, ForNodes: []discoveryv1.ForNode{{Name: nodeName}},
				}),
			}
		}),
	}
}
