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
		Define(Kind{
			GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Namespace"), Resource: "namespaces",
			NewList: func() runtime.Object { return &corev1.NamespaceList{} },
		}, Definition[corev1.Namespace]{
			Trim:  trimNamespace,
			AddTo: func(in *model.Inputs, objects []*corev1.Namespace) { in.Namespaces = objects },
		}),
		Define(Kind{
			GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Node"), Resource: "nodes",
			NewList: func() runtime.Object { return &corev1.NodeList{} },
			Select:  func(node string) Selector { return Selector{Fields: equalTo("metadata.name", node)} },
		}, Definition[corev1.Node]{
			Trim:   trimNode,
			Wanted: func(o *corev1.Node, node string) bool { return o.Name == node },
			AddTo: func(in *model.Inputs, objects []*corev1.Node) {
				for _, o := range objects {
					in.Node = o
				}
			},
		}),
		Define(Kind{
			GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"), Resource: "pods", Namespaced: true,
			NewList: func() runtime.Object { return &corev1.PodList{} },
			// Finished pods have nothing to redirect; a node may keep thousands.
			Select: func(node string) Selector {
				return Selector{Fields: equalTo("spec.nodeName", node) + ",status.phase!=Succeeded,status.phase!=Failed"}
			},
		}, Definition[corev1.Pod]{
			Trim:   trimPod,
			Wanted: func(o *corev1.Pod, node string) bool { return o.Spec.NodeName == node },
			AddTo:  func(in *model.Inputs, objects []*corev1.Pod) { in.Pods = objects },
		}),
		Define(Kind{
			GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Service"), Resource: "services", Namespaced: true,
			NewList: func() runtime.Object { return &corev1.ServiceList{} },
		}, Definition[corev1.Service]{
			Trim:  trimService,
			AddTo: func(in *model.Inputs, objects []*corev1.Service) { in.Services = objects },
		}),
		Define(Kind{
			GroupVersionKind: discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), Resource: "endpointslices",
			Namespaced: true, NewList: func() runtime.Object { return &discoveryv1.EndpointSliceList{} },
			// A headless Service has no frontend, and kube-proxy leaves one with a
			// proxy of its own alone: nothing would read their endpoints.
			Select: func(string) Selector {
				return Selector{
					Labels: "!" + corev1.IsHeadlessService + ",!" + model.ServiceProxyNameLabel + "," + discoveryv1.LabelServiceName,
				}
			},
		}, Definition[discoveryv1.EndpointSlice]{
			Trim:  trimEndpointSlice,
			Equal: equalEndpointSlices,
			AddTo: func(in *model.Inputs, objects []*discoveryv1.EndpointSlice) { in.EndpointSlices = objects },
		}),
	}
}

func equalTo(field, value string) string { return fields.OneTermEqualSelector(field, value).String() }
