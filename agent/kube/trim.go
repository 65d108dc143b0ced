// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// labelServiceProxyName marks what kube-proxy, and so nodevoy, leaves alone.
const labelServiceProxyName = "service.kubernetes.io/service-proxy-name"

// trim drops, in place, every field that neither the model nor client-go
// reads. What is kept, beside name, namespace, UID, resourceVersion and the
// labels named below:
//
//	Namespace      creation and deletion times, every label: any may be selected by
//	Node           status.addresses
//	Pod            creation and deletion times, nodeName, hostNetwork, phase, IPs,
//	               and what shows another mesh's proxy: names, without values
//	Service        creation time, all of spec that says where it is reached and
//	               how, load-balancer ingress
//	EndpointSlice  addressType, ports, endpoints; of targetRef only what names a pod
func trim(object any, interned *interner) {
	switch o := object.(type) {
	case *corev1.Namespace:
		labels := o.Labels
		*o = corev1.Namespace{ObjectMeta: meta(&o.ObjectMeta, interned)}
		o.Labels = labels
	case *corev1.Node:
		*o = corev1.Node{
			ObjectMeta: meta(&o.ObjectMeta, interned, corev1.LabelTopologyRegion, corev1.LabelTopologyZone),
			Status:     corev1.NodeStatus{Addresses: o.Status.Addresses},
		}
	case *corev1.Pod:
		trimPod(o, interned)
	case *corev1.Service:
		trimService(o, interned)
	case *discoveryv1.EndpointSlice:
		trimSlice(o, interned)
	}
}

// meta keeps what identifies an object, and the labels asked for.
func meta(from *metav1.ObjectMeta, interned *interner, labels ...string) metav1.ObjectMeta {
	kept := metav1.ObjectMeta{
		Name:              from.Name,
		Namespace:         interned.string(from.Namespace),
		UID:               from.UID,
		ResourceVersion:   from.ResourceVersion,
		CreationTimestamp: from.CreationTimestamp,
		DeletionTimestamp: from.DeletionTimestamp,
	}
	for _, label := range labels {
		if value, ok := from.Labels[label]; ok {
			if kept.Labels == nil {
				kept.Labels = make(map[string]string, 1)
			}
			kept.Labels[label] = interned.string(value)
		}
	}
	return kept
}

func trimService(o *corev1.Service, interned *interner) {
	ports := make([]corev1.ServicePort, len(o.Spec.Ports))
	for i := range o.Spec.Ports {
		from := &o.Spec.Ports[i]
		ports[i] = corev1.ServicePort{
			Name: interned.string(from.Name), Protocol: from.Protocol, AppProtocol: from.AppProtocol, Port: from.Port,
		}
	}
	*o = corev1.Service{
		ObjectMeta: meta(&o.ObjectMeta, interned, model.RedirectLabel, labelServiceProxyName),
		Spec: corev1.ServiceSpec{
			Type:                     o.Spec.Type,
			Ports:                    ports,
			ClusterIP:                o.Spec.ClusterIP,
			ClusterIPs:               o.Spec.ClusterIPs,
			ExternalIPs:              o.Spec.ExternalIPs,
			LoadBalancerSourceRanges: o.Spec.LoadBalancerSourceRanges,
			SessionAffinity:          o.Spec.SessionAffinity,
			InternalTrafficPolicy:    o.Spec.InternalTrafficPolicy,
		},
		Status: corev1.ServiceStatus{LoadBalancer: o.Status.LoadBalancer},
	}
}

// trimSlice is where the memory is: a large cluster has a hundred endpoints
// for each Service. The many small allocations of an endpoint are put into a
// few per slice, and the names they share are stored once.
func trimSlice(o *discoveryv1.EndpointSlice, interned *interner) {
	n := len(o.Endpoints)
	endpoints := make([]discoveryv1.Endpoint, n)
	addresses := make([]string, n)
	refs := make([]corev1.ObjectReference, n)
	for i := range o.Endpoints {
		from, to := &o.Endpoints[i], &endpoints[i]
		if len(from.Addresses) > 0 {
			addresses[i] = from.Addresses[0]
			to.Addresses = addresses[i : i+1 : i+1]
		}
		to.Conditions = discoveryv1.EndpointConditions{
			Ready:       interned.bool(from.Conditions.Ready),
			Serving:     interned.bool(from.Conditions.Serving),
			Terminating: interned.bool(from.Conditions.Terminating),
		}
		to.NodeName, to.Zone = interned.pointer(from.NodeName), interned.pointer(from.Zone)
		to.Hints = from.Hints
		if from.TargetRef != nil {
			refs[i] = corev1.ObjectReference{
				Kind: interned.string(from.TargetRef.Kind), Namespace: interned.string(from.TargetRef.Namespace),
				Name: from.TargetRef.Name,
			}
			to.TargetRef = &refs[i]
		}
	}
	*o = discoveryv1.EndpointSlice{
		ObjectMeta:  meta(&o.ObjectMeta, interned, discoveryv1.LabelServiceName),
		AddressType: o.AddressType,
		Ports:       o.Ports,
		Endpoints:   endpoints,
	}
}

// equal says whether two versions of an object are the same to the model: node
// heartbeats and the like make a new version of an object every few seconds.
func equal(before, after any) bool {
	switch b := before.(type) {
	case *corev1.Namespace:
		if a, ok := after.(*corev1.Namespace); ok {
			return sameMeta(b.ObjectMeta, a.ObjectMeta)
		}
	case *corev1.Node:
		if a, ok := after.(*corev1.Node); ok {
			return sameMeta(b.ObjectMeta, a.ObjectMeta) && same(b.Status, a.Status)
		}
	case *corev1.Pod:
		if a, ok := after.(*corev1.Pod); ok {
			return sameMeta(b.ObjectMeta, a.ObjectMeta) && same(b.Spec, a.Spec) && same(b.Status, a.Status)
		}
	case *corev1.Service:
		if a, ok := after.(*corev1.Service); ok {
			return sameMeta(b.ObjectMeta, a.ObjectMeta) && same(b.Spec, a.Spec) && same(b.Status, a.Status)
		}
	case *discoveryv1.EndpointSlice:
		if a, ok := after.(*discoveryv1.EndpointSlice); ok {
			return sameMeta(b.ObjectMeta, a.ObjectMeta) && b.AddressType == a.AddressType &&
				same(b.Ports, a.Ports) && same(b.Endpoints, a.Endpoints)
		}
	}
	return false
}

func sameMeta(before, after metav1.ObjectMeta) bool {
	before.ResourceVersion, after.ResourceVersion = "", ""
	return same(before, after)
}

func same[T any](before, after T) bool { return equality.Semantic.DeepEqual(before, after) }

// interner stores equal strings once. It is bounded: names come and go, and
// what it has forgotten is merely stored again.
type interner struct {
	mu      sync.Mutex
	strings map[string]*string
	yes, no bool
}

const internerSize = 50_000

func newInterner() *interner { return &interner{strings: map[string]*string{}, yes: true} }

func (in *interner) pointer(s *string) *string {
	if s == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	known, ok := in.strings[*s]
	if !ok {
		if len(in.strings) >= internerSize {
			clear(in.strings)
		}
		own := *s
		known = &own
		in.strings[own] = known
	}
	return known
}

func (in *interner) string(s string) string { return *in.pointer(&s) }

func (in *interner) bool(b *bool) *bool {
	switch {
	case b == nil:
		return nil
	case *b:
		return &in.yes
	default:
		return &in.no
	}
}
