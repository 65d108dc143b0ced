// SPDX-License-Identifier: Apache-2.0

package kube

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

func trimPod(o *corev1.Pod, interned *interner) {
	annotations := o.Annotations
	*o = corev1.Pod{
		ObjectMeta: meta(&o.ObjectMeta, interned, model.RedirectLabel),
		Spec: corev1.PodSpec{
			NodeName: interned.string(o.Spec.NodeName), HostNetwork: o.Spec.HostNetwork,
			Containers: proxies(o.Spec.Containers), InitContainers: proxies(o.Spec.InitContainers),
		},
		Status: corev1.PodStatus{Phase: o.Status.Phase, PodIP: o.Status.PodIP, PodIPs: o.Status.PodIPs},
	}
	for _, m := range model.Meshes() {
		if _, annotated := annotations[m.Annotation]; annotated {
			if o.Annotations == nil {
				o.Annotations = make(map[string]string, 1)
			}
			// The value can be kilobytes, and changes nothing.
			o.Annotations[m.Annotation] = ""
		}
	}
}

// proxies are the containers that are another mesh's proxy, by name alone.
func proxies(containers []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	for i := range containers {
		for _, m := range model.Meshes() {
			if containers[i].Name == m.Container {
				kept = append(kept, corev1.Container{Name: m.Container})
			}
		}
	}
	return kept
}
