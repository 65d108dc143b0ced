// SPDX-License-Identifier: Apache-2.0

package kinds

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodevoy/nodevoy/agent/model"
)

// fat is metadata as API servers send it.
func fat(name string, labels ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		Name: name, Namespace: "shop", UID: types.UID("uid-" + name), ResourceVersion: "7", Generation: 3,
		CreationTimestamp: metav1.NewTime(time.Date(2026, time.March, 1, 0, 0, 0, 0, time.UTC)),
		Labels:            map[string]string{"app": "web", "pod-template-hash": "abc"},
		Annotations:       map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{ ... }"},
		OwnerReferences:   []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web"}},
		ManagedFields:     []metav1.ManagedFieldsEntry{{Manager: "kubectl", FieldsV1: metav1.NewFieldsV1("{}")}},
	}
	for _, label := range labels {
		m.Labels[label] = "kept"
	}
	return m
}

// lean is what of it is kept.
func lean(name string, labels ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		Name: name, Namespace: "shop", UID: types.UID("uid-" + name), ResourceVersion: "7",
		CreationTimestamp: metav1.NewTime(time.Date(2026, time.March, 1, 0, 0, 0, 0, time.UTC)),
	}
	if len(labels) > 0 {
		m.Labels = map[string]string{}
	}
	for _, label := range labels {
		m.Labels[label] = "kept"
	}
	return m
}

// labelled sets an object's labels.
func labelled(ns *corev1.Namespace, labels map[string]string) *corev1.Namespace {
	ns.Labels = labels
	return ns
}

// annotated has these annotations and no others.
func annotated(meta metav1.ObjectMeta, annotations map[string]string) metav1.ObjectMeta {
	meta.Annotations = annotations
	return meta
}

// controlled has a controller, and an owner that is none.
func controlled(meta metav1.ObjectMeta) metav1.ObjectMeta {
	meta.OwnerReferences = []metav1.OwnerReference{
		{Kind: "Fleet", Name: "f"}, {APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "u", Controller: new(true), BlockOwnerDeletion: new(true)},
	}
	return meta
}

// ownedBy has this owner alone.
func ownedBy(meta metav1.ObjectMeta, owner metav1.OwnerReference) metav1.ObjectMeta {
	meta.OwnerReferences = []metav1.OwnerReference{owner}
	return meta
}

// kindOf is the entry of the object's kind.
func kindOf(t *testing.T, o Object) Kind {
	t.Helper()
	for _, k := range All() {
		if fmt.Sprintf("%T", k.New()) == fmt.Sprintf("%T", o) {
			return k
		}
	}
	t.Fatalf("no entry for %T", o)
	return Kind{}
}

func TestTrim(t *testing.T) {
	local := corev1.ServiceInternalTrafficPolicyLocal
	ingress := corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}}
	for _, test := range []struct {
		name       string
		have, want Object
	}{
		{
			name: "namespace",
			have: &corev1.Namespace{
				ObjectMeta: fat("n", model.RedirectLabel), Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"x"}},
			},
			want: labelled(&corev1.Namespace{ObjectMeta: lean("n")}, fat("n", model.RedirectLabel).Labels),
		},
		{
			name: "namespace that says what is logged",
			have: &corev1.Namespace{ObjectMeta: annotated(fat("n"), map[string]string{"nodevoy.io/access-log": "errors", "nodevoy.io/tracing": "5%", "x": "y"})},
			want: labelled(&corev1.Namespace{ObjectMeta: annotated(lean("n"), map[string]string{
				"nodevoy.io/access-log": "errors", "nodevoy.io/tracing": "5%",
			})}, fat("n").Labels),
		},
		{
			name: "no label that matters",
			have: &corev1.Service{ObjectMeta: fat("n")}, want: &corev1.Service{ObjectMeta: lean("n"), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{}}},
		},
		{
			name: "node",
			have: &corev1.Node{
				ObjectMeta: fat("n", corev1.LabelTopologyZone, corev1.LabelTopologyRegion), Spec: corev1.NodeSpec{PodCIDR: "10.0.0.0/24"},
				Status: corev1.NodeStatus{
					Images:    []corev1.ContainerImage{{SizeBytes: 1 << 30}},
					Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.9.9.9"}},
				},
			},
			want: &corev1.Node{
				ObjectMeta: lean("n", corev1.LabelTopologyZone, corev1.LabelTopologyRegion),
				Status: corev1.NodeStatus{
					Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.9.9.9"}},
				},
			},
		},
		{
			name: "pod",
			have: &corev1.Pod{
				ObjectMeta: fat("p", model.RedirectLabel),
				Spec: corev1.PodSpec{
					NodeName: "node-1", HostNetwork: true, Containers: []corev1.Container{{Name: "c"}}, Volumes: []corev1.Volume{{Name: "v"}},
				},
				Status: corev1.PodStatus{
					Phase: corev1.PodRunning, PodIP: "10.1.0.1", PodIPs: []corev1.PodIP{{IP: "10.1.0.1"}},
					Conditions: []corev1.PodCondition{{Type: corev1.PodReady}}, ContainerStatuses: []corev1.ContainerStatus{{Name: "c"}},
				},
			},
			want: &corev1.Pod{
				ObjectMeta: lean("p", model.RedirectLabel),
				Spec:       corev1.PodSpec{NodeName: "node-1", HostNetwork: true},
				Status: corev1.PodStatus{
					Phase: corev1.PodRunning, PodIP: "10.1.0.1", PodIPs: []corev1.PodIP{{IP: "10.1.0.1"}},
				},
			},
		},
		{
			name: "pod with other meshes' proxies",
			have: &corev1.Pod{
				ObjectMeta: annotated(fat("p"), map[string]string{
					"sidecar.istio.io/status": `{"initContainers":["istio-init"]}`, "linkerd.io/proxy-version": "edge-26.11.1", "note": "other",
				}),
				Spec: corev1.PodSpec{
					Containers:     []corev1.Container{{Name: "main"}, {Name: "istio-proxy", Image: "proxyv2", Args: []string{"proxy"}}},
					InitContainers: []corev1.Container{{Name: "linkerd-init"}, {Name: "linkerd-proxy", Image: "proxy"}},
				},
			},
			want: &corev1.Pod{
				ObjectMeta: annotated(lean("p"), map[string]string{"sidecar.istio.io/status": "", "linkerd.io/proxy-version": ""}),
				Spec: corev1.PodSpec{
					Containers:     []corev1.Container{{Name: "istio-proxy"}},
					InitContainers: []corev1.Container{{Name: "linkerd-proxy"}},
				},
			},
		},
		{
			name: "pod with a controller",
			have: &corev1.Pod{ObjectMeta: controlled(fat("p"))},
			want: &corev1.Pod{ObjectMeta: ownedBy(lean("p"), metav1.OwnerReference{Kind: "ReplicaSet", Name: "web", Controller: new(true)})},
		},
		{
			name: "pod with ports",
			have: &corev1.Pod{ObjectMeta: fat("p"), Spec: corev1.PodSpec{
				Containers: []corev1.Container{
					{Name: "a", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80, HostPort: 8080, Protocol: corev1.ProtocolTCP}}},
					{Name: "linkerd-proxy", Ports: []corev1.ContainerPort{{ContainerPort: 53, Protocol: corev1.ProtocolUDP}, {ContainerPort: 4143}}},
				},
				InitContainers: []corev1.Container{{Name: "i", Ports: []corev1.ContainerPort{{ContainerPort: 7000}}}},
			}},
			want: &corev1.Pod{ObjectMeta: lean("p"), Spec: corev1.PodSpec{
				Containers:     []corev1.Container{{Name: "linkerd-proxy"}, {Ports: []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 4143}}}},
				InitContainers: []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: 7000}}}},
			}},
		},
		{
			name: "service",
			have: &corev1.Service{
				ObjectMeta: fat("s", model.RedirectLabel, model.ServiceProxyNameLabel),
				Spec: corev1.ServiceSpec{
					Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1"},
					ExternalIPs: []string{"192.0.2.9"}, LoadBalancerSourceRanges: []string{"0.0.0.0/0"},
					SessionAffinity: corev1.ServiceAffinityClientIP, InternalTrafficPolicy: &local,
					Selector: map[string]string{"app": "web"}, HealthCheckNodePort: 30001,
					Ports: []corev1.ServicePort{{
						Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, AppProtocol: new("http"), NodePort: 30000,
					}},
				},
				Status: corev1.ServiceStatus{LoadBalancer: ingress, Conditions: []metav1.Condition{{Type: "x"}}},
			},
			want: &corev1.Service{
				ObjectMeta: lean("s", model.RedirectLabel, model.ServiceProxyNameLabel),
				Spec: corev1.ServiceSpec{
					Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1"},
					ExternalIPs: []string{"192.0.2.9"}, LoadBalancerSourceRanges: []string{"0.0.0.0/0"},
					SessionAffinity: corev1.ServiceAffinityClientIP, InternalTrafficPolicy: &local,
					Ports: []corev1.ServicePort{{
						Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, AppProtocol: new("http"),
					}},
				},
				Status: corev1.ServiceStatus{LoadBalancer: ingress},
			},
		},
		{
			name: "endpoint slice",
			have: &discoveryv1.EndpointSlice{
				ObjectMeta: fat("e", discoveryv1.LabelServiceName), AddressType: discoveryv1.AddressTypeIPv4,
				Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(80))}},
				Endpoints: []discoveryv1.Endpoint{
					{
						Addresses:  []string{"10.0.0.1", "10.0.0.2"},
						Conditions: discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true)},
						Hostname:   new("h"), NodeName: new("node-1"), Zone: new("zone-a"),
						TargetRef:          &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "p", UID: "u", ResourceVersion: "9"},
						Hints:              &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "zone-a"}}},
						DeprecatedTopology: map[string]string{"x": "y"},
					},
					{},
				},
			},
			want: &discoveryv1.EndpointSlice{
				ObjectMeta: lean("e", discoveryv1.LabelServiceName), AddressType: discoveryv1.AddressTypeIPv4,
				Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(80))}},
				Endpoints: []discoveryv1.Endpoint{
					{
						Addresses:  []string{"10.0.0.1"},
						Conditions: discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true)},
						NodeName:   new("node-1"), Zone: new("zone-a"),
						TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "p"},
						Hints:     &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "zone-a"}}},
					},
					{},
				},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			interned, kind, before := NewInterner(), kindOf(t, test.have), test.have.DeepCopyObject()
			trimmed := kind.Trim(test.have, interned)
			if diff := cmp.Diff(test.want, trimmed); diff != "" {
				t.Errorf("trimmed (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, test.have.DeepCopyObject()); diff != "" {
				t.Errorf("trim wrote to its argument (-before +after):\n%s", diff)
			}
			// What a streamed list brought is trimmed again.
			if diff := cmp.Diff(test.want, kind.Trim(trimmed, interned)); diff != "" {
				t.Errorf("trimmed twice (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEqual(t *testing.T) {
	at := func(version string, meta metav1.ObjectMeta) metav1.ObjectMeta {
		meta.ResourceVersion = version
		return meta
	}
	ready := func(ready bool) []discoveryv1.Endpoint {
		return []discoveryv1.Endpoint{{Conditions: discoveryv1.EndpointConditions{Ready: &ready}}}
	}
	endpoint := func(change func(*discoveryv1.Endpoint)) *discoveryv1.EndpointSlice {
		e := discoveryv1.Endpoint{
			Addresses: []string{"10.0.0.1"}, NodeName: new("a"), Zone: new("z"),
			Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
			TargetRef:  &corev1.ObjectReference{Name: "p"}, Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "z"}}},
		}
		change(&e)
		return &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{e}}
	}
	whole := endpoint(func(*discoveryv1.Endpoint) {})
	for _, test := range []struct {
		name          string
		before, after Object
		want          bool
	}{
		{"namespace, new version", &corev1.Namespace{ObjectMeta: at("1", lean("n"))}, &corev1.Namespace{ObjectMeta: at("2", lean("n"))}, true},
		{"namespace, new label", &corev1.Namespace{ObjectMeta: lean("n")}, &corev1.Namespace{ObjectMeta: lean("n", model.RedirectLabel)}, false},
		{"node, heartbeat", &corev1.Node{ObjectMeta: at("1", lean("n"))}, &corev1.Node{ObjectMeta: at("2", lean("n"))}, true},
		{"node, moved", &corev1.Node{ObjectMeta: lean("n")}, &corev1.Node{ObjectMeta: lean("n", corev1.LabelTopologyZone)}, false},
		{"node, address", &corev1.Node{}, &corev1.Node{Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{}}}}, false},
		{"pod, new version", &corev1.Pod{ObjectMeta: at("1", lean("p"))}, &corev1.Pod{ObjectMeta: at("2", lean("p"))}, true},
		{"pod, phase", &corev1.Pod{}, &corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed}}, false},
		{
			"pod, another mesh's annotation", &corev1.Pod{ObjectMeta: lean("p")},
			&corev1.Pod{ObjectMeta: annotated(lean("p"), map[string]string{"linkerd.io/proxy-version": ""})}, false,
		},
		{"pod, made again", &corev1.Pod{ObjectMeta: lean("p")}, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}, false},
		{"service, new version", &corev1.Service{ObjectMeta: at("1", lean("s"))}, &corev1.Service{ObjectMeta: at("2", lean("s"))}, true},
		{"service, type", &corev1.Service{}, &corev1.Service{Spec: corev1.ServiceSpec{Type: "ExternalName"}}, false},
		{"slice, same", &discoveryv1.EndpointSlice{Endpoints: ready(true)}, &discoveryv1.EndpointSlice{Endpoints: ready(true)}, true},
		{"slice, readiness", &discoveryv1.EndpointSlice{Endpoints: ready(true)}, &discoveryv1.EndpointSlice{Endpoints: ready(false)}, false},
		{"endpoint, same", whole, endpoint(func(*discoveryv1.Endpoint) {}), true},
		{"endpoint, address", whole, endpoint(func(e *discoveryv1.Endpoint) { e.Addresses[0] = "10.0.0.2" }), false},
		{"endpoint, ready", whole, endpoint(func(e *discoveryv1.Endpoint) { e.Conditions.Ready = nil }), false},
		{"endpoint, serving", whole, endpoint(func(e *discoveryv1.Endpoint) { e.Conditions.Serving = new(false) }), false},
		{"endpoint, terminating", whole, endpoint(func(e *discoveryv1.Endpoint) { e.Conditions.Terminating = new(true) }), false},
		{"endpoint, node", whole, endpoint(func(e *discoveryv1.Endpoint) { e.NodeName = new("b") }), false},
		{"endpoint, zone", whole, endpoint(func(e *discoveryv1.Endpoint) { e.Zone = nil }), false},
		{"endpoint, pod", whole, endpoint(func(e *discoveryv1.Endpoint) { e.TargetRef.Name = "q" }), false},
		{"endpoint, hints", whole, endpoint(func(e *discoveryv1.Endpoint) { e.Hints.ForZones[0].Name = "y" }), false},
		{"endpoint, no hints", whole, endpoint(func(e *discoveryv1.Endpoint) { e.Hints = nil }), false},
		{"slice, fewer endpoints", whole, &discoveryv1.EndpointSlice{}, false},
		{"slice, ports", whole, &discoveryv1.EndpointSlice{Endpoints: whole.Endpoints, Ports: []discoveryv1.EndpointPort{{}}}, false},
		{"slice, address type", whole, &discoveryv1.EndpointSlice{Endpoints: whole.Endpoints, AddressType: "IPv6"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := kindOf(t, test.before).Equal(test.before, test.after); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestInternerIsBounded(t *testing.T) {
	interned := NewInterner()
	first := interned.string("first")
	for i := range 2 * internerSize {
		if got, want := interned.string(fmt.Sprint(i)), fmt.Sprint(i); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	if n := len(interned.strings); n > internerSize {
		t.Errorf("holds %d strings, want at most %d", n, internerSize)
	}
	if first != "first" {
		t.Errorf("forgotten string became %q", first)
	}
}

// TestTrimmedSlicesAreSmall bounds what 100,000 endpoints hold of the heap.
func TestTrimmedSlicesAreSmall(t *testing.T) {
	const count, perSlice, limit = 100_000, 10, 400
	encoded := encodedSlice(t, perSlice)
	interned := NewInterner()
	kept := make([]*discoveryv1.EndpointSlice, count/perSlice)
	before := heap()
	for i := range kept {
		received := &discoveryv1.EndpointSlice{}
		if err := received.Unmarshal(encoded); err != nil {
			t.Fatal(err)
		}
		kept[i] = trimEndpointSlice(received, interned)
	}
	each := int(heap()-before) / count
	runtime.KeepAlive(kept)
	t.Logf("%d bytes for each of %d endpoints", each, count)
	if each > limit {
		t.Errorf("an endpoint holds %d bytes, want at most %d", each, limit)
	}
}

// encodedSlice is a slice as it arrives, in protobuf.
func encodedSlice(t *testing.T, endpoints int) []byte {
	t.Helper()
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: fat("web-1", discoveryv1.LabelServiceName), AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(80))}},
	}
	for i := range endpoints {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{fmt.Sprintf("10.100.200.%d", i)},
			Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
			NodeName:   new(fmt.Sprintf("ip-10-0-0-%d.eu-central-1.compute.internal", i)), Zone: new("eu-central-1a"),
			TargetRef: &corev1.ObjectReference{
				Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("web-7d4b9c6f5-%05d", i), UID: "0f8fad5b-d9cb-469f-a165-70867728950e",
			},
		})
	}
	encoded, err := slice.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func heap() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
