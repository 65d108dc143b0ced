// SPDX-License-Identifier: Apache-2.0

package kinds

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// trimMeta keeps what identifies an object, and the labels that are named.
func trimMeta(from *metav1.ObjectMeta, interned *Interner, labels ...string) metav1.ObjectMeta {
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

// keepAnnotations adds to an object's metadata the annotations that are named.
func keepAnnotations(kept, from *metav1.ObjectMeta, interned *Interner, keys ...string) {
	for _, key := range keys {
		if value, annotated := from.Annotations[key]; annotated {
			if kept.Annotations == nil {
				kept.Annotations = make(map[string]string, 1)
			}
			kept.Annotations[key] = interned.string(value)
		}
	}
}

// trimNamespace keeps every label: any may be selected by. It keeps our annotations.
func trimNamespace(o *corev1.Namespace, interned *Interner) *corev1.Namespace {
	kept := &corev1.Namespace{ObjectMeta: trimMeta(&o.ObjectMeta, interned)}
	kept.Labels = o.Labels
	keepAnnotations(&kept.ObjectMeta, &o.ObjectMeta, interned, model.AccessLogAnnotation, model.TracingAnnotation)
	return kept
}

func trimNode(o *corev1.Node, interned *Interner) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: trimMeta(&o.ObjectMeta, interned, corev1.LabelTopologyRegion, corev1.LabelTopologyZone),
		Status:     corev1.NodeStatus{Addresses: o.Status.Addresses},
	}
}

func trimService(o *corev1.Service, interned *Interner) *corev1.Service {
	ports := make([]corev1.ServicePort, len(o.Spec.Ports))
	for i := range o.Spec.Ports {
		from := &o.Spec.Ports[i]
		ports[i] = corev1.ServicePort{
			Name: interned.string(from.Name), Protocol: from.Protocol, AppProtocol: from.AppProtocol, Port: from.Port, TargetPort: from.TargetPort,
		}
	}
	meta := trimMeta(&o.ObjectMeta, interned, model.RedirectLabel, model.ServiceProxyNameLabel)
	keepAnnotations(&meta, &o.ObjectMeta, interned, model.ClassAnnotation)
	return &corev1.Service{
		ObjectMeta: meta,
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

// trimPod keeps of containers only the TCP ports, of containers and annotations the
// names that show another mesh's proxy, and of owners the controller's kind and name.
func trimPod(o *corev1.Pod, interned *Interner) *corev1.Pod {
	kept := &corev1.Pod{
		ObjectMeta: trimMeta(&o.ObjectMeta, interned, model.RedirectLabel),
		Spec: corev1.PodSpec{
			NodeName: interned.string(o.Spec.NodeName), HostNetwork: o.Spec.HostNetwork,
			Containers: trimContainers(o.Spec.Containers), InitContainers: trimContainers(o.Spec.InitContainers),
		},
		Status: corev1.PodStatus{Phase: o.Status.Phase, PodIP: o.Status.PodIP, PodIPs: o.Status.PodIPs},
	}
	if owner := metav1.GetControllerOfNoCopy(o); owner != nil {
		// It says which workload the pod is of.
		kept.OwnerReferences = []metav1.OwnerReference{{
			Kind: interned.string(owner.Kind), Name: interned.string(owner.Name), Controller: &interned.yes,
		}}
	}
	for _, m := range model.Meshes() {
		if _, annotated := o.Annotations[m.Annotation]; annotated {
			if kept.Annotations == nil {
				kept.Annotations = make(map[string]string, 1)
			}
			// The value can be kilobytes, and is not read.
			kept.Annotations[m.Annotation] = ""
		}
	}
	return kept
}

// trimContainers keeps those that are another mesh's proxy, by name alone, and the
// ports of all in one more: a Container is large.
func trimContainers(containers []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	var ports []corev1.ContainerPort
	for i := range containers {
		for _, m := range model.Meshes() {
			if containers[i].Name == m.Container {
				kept = append(kept, corev1.Container{Name: m.Container})
			}
		}
		for _, p := range containers[i].Ports {
			if model.IsTCP(p.Protocol) {
				ports = append(ports, corev1.ContainerPort{ContainerPort: p.ContainerPort})
			}
		}
	}
	if len(ports) > 0 {
		kept = append(kept, corev1.Container{Ports: ports})
	}
	return kept
}
