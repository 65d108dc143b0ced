// SPDX-License-Identifier: Apache-2.0

package kinds

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// trimEndpointSlice is where the memory is: a large cluster has a hundred
// endpoints for each Service. The many small allocations of an endpoint are put
// into a few per slice, and the names they share are stored once. Of an
// endpoint's addresses the first is kept, of its targetRef what names a pod.
func trimEndpointSlice(o *discoveryv1.EndpointSlice, interned *Interner) *discoveryv1.EndpointSlice {
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
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  trimMeta(&o.ObjectMeta, interned, discoveryv1.LabelServiceName),
		AddressType: o.AddressType,
		Ports:       o.Ports,
		Endpoints:   endpoints,
	}
}

// equalEndpointSlices is written out because it is called for every event:
// comparing a slice of a hundred endpoints by reflection takes ten times as long.
func equalEndpointSlices(before, after *discoveryv1.EndpointSlice) bool {
	b, a := before.ObjectMeta, after.ObjectMeta
	b.ResourceVersion, a.ResourceVersion = "", ""
	return equality.Semantic.DeepEqual(b, a) && before.AddressType == after.AddressType &&
		equality.Semantic.DeepEqual(before.Ports, after.Ports) &&
		slices.EqualFunc(before.Endpoints, after.Endpoints, func(b, a discoveryv1.Endpoint) bool { return equalEndpoints(&b, &a) })
}

func equalEndpoints(before, after *discoveryv1.Endpoint) bool {
	return slices.Equal(before.Addresses, after.Addresses) &&
		equalPointers(before.Conditions.Ready, after.Conditions.Ready) &&
		equalPointers(before.Conditions.Serving, after.Conditions.Serving) &&
		equalPointers(before.Conditions.Terminating, after.Conditions.Terminating) &&
		equalPointers(before.NodeName, after.NodeName) && equalPointers(before.Zone, after.Zone) &&
		equalPointers(before.TargetRef, after.TargetRef) &&
		(before.Hints == after.Hints || equality.Semantic.DeepEqual(before.Hints, after.Hints))
}

// equalPointers says whether both are nil or point to equal values.
func equalPointers[T comparable](before, after *T) bool {
	if before == nil || after == nil {
		return before == after
	}
	return *before == *after
}
