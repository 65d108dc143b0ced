// SPDX-License-Identifier: Apache-2.0

package model

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Inputs are the Kubernetes objects a Node is built from, in any order. The
// objects are shared with the cache they come from and are never written to.
type Inputs struct {
	// NodeName is the name of the node the agent runs on.
	NodeName string
	// Node is that node's object; nil while it is not known, which costs only
	// locality.
	Node       *corev1.Node
	Namespaces []*corev1.Namespace
	// Pods are the pods of this node; pods of other nodes are ignored.
	Pods           []*corev1.Pod
	Services       []*corev1.Service
	EndpointSlices []*discoveryv1.EndpointSlice
}
