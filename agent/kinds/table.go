// SPDX-License-Identifier: Apache-2.0

package kinds

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nodevoy/nodevoy/agent/model"
)

// All is the table.
func All() []Kind {
	return []Kind{
		Define(Definition[corev1.Namespace]{
			Kind: corev1.SchemeGroupVersion.WithKind("Namespace"), Resource: "namespaces",
			NewList: func() runtime.Object { return &corev1.NamespaceList{} },
			Trim:    trimNamespace,
			Equal:   equalNamespaces,
			Place:   func(in *model.Inputs, objects []*corev1.Namespace) { in.Namespaces = objects },
		}),
		Define(Definition[corev1.Node]{
			Kind: corev1.SchemeGroupVersion.WithKind("Node"), Resource: "nodes",
			NewList: func() runtime.Object { return &corev1.NodeList{} },
			Select:  func(node string) Selector { return Selector{Fields: equalTo("metadata.name", node)} },
			Trim:    trimNode,
			Equal:   equalNodes,
			Wanted:  func(o *corev1.Node, node string) bool { return o.Name == node },
			Place: func(in *model.Inputs, objects []*corev1.Node) {
				for _, o := range objects {
					in.Node = o
				}
			},
		}),
		Define(Definition[corev1.Pod]{
			Kind: corev1.SchemeGroupVersion.WithKind("Pod"), Resource: "pods", Namespaced: true,
			NewList: func() runtime.Object { return &corev1.PodList{} },
			// Finished pods have nothing to redirect; a node may keep thousands.
			Select: func(node string) Selector {
				return Selector{Fields: equalTo("spec.nodeName", node) + ",status.phase!=Succeeded,status.phase!=Failed"}
			},
			Trim:   trimPod,
			Equal:  equalPods,
			Wanted: func(o *corev1.Pod, node string) bool { return o.Spec.NodeName == node },
			Place:  func(in *model.Inputs, objects []*corev1.Pod) { in.Pods = objects },
		}),
		Define(Definition[corev1.Service]{
			Kind: corev1.SchemeGroupVersion.WithKind("Service"), Resource: "services", Namespaced: true,
			NewList: func() runtime.Object { return &corev1.ServiceList{} },
			Trim:    trimService,
			Equal:   equalServices,
			Place:   func(in *model.Inputs, objects []*corev1.Service) { in.Services = objects },
		}),
		Define(Definition[discoveryv1.EndpointSlice]{
			Kind: discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), Resource: "endpointslices", Namespaced: true,
			NewList: func() runtime.Object { return &discoveryv1.EndpointSliceList{} },
			// A headless Service has no frontend, and kube-proxy leaves one with a
			// proxy of its own alone: nothing would read their endpoints.
			Select: func(string) Selector {
				return Selector{Labels: "!" + corev1.IsHeadlessService + ",!" + labelServiceProxyName + "," + discoveryv1.LabelServiceName}
			},
			Trim:  trimEndpointSlice,
			Equal: equalEndpointSlices,
			Place: func(in *model.Inputs, objects []*discoveryv1.EndpointSlice) { in.EndpointSlices = objects },
		}),
	}
}

func equalTo(field, value string) string { return fields.OneTermEqualSelector(field, value).String() }
