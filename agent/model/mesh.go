// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Mesh is another mesh whose proxy can sit in a pod. Its rules redirect the
// pod's connections already, and two proxies in a row help nobody.
type Mesh struct {
	// Name is the mesh's, for people.
	Name string
	// Container is the name of its proxy's container, which may be an init
	// container that goes on running.
	Container string
	// Annotation is the key its injector leaves on the pod, with any value.
	Annotation string
}

// Meshes are those that are known. Of a pod's annotations and the names of its
// containers the model reads nothing but what is in this list.
func Meshes() []Mesh {
	return []Mesh{
		{Name: "Istio", Container: "istio-proxy", Annotation: "sidecar.istio.io/status"},
		{Name: "Linkerd", Container: "linkerd-proxy", Annotation: "linkerd.io/proxy-version"},
	}
}

// otherMesh says how the pod shows that it has another mesh's proxy; empty when
// it has none.
func otherMesh(pod *corev1.Pod) string {
	for _, m := range Meshes() {
		named := func(c corev1.Container) bool { return c.Name == m.Container }
		switch {
		case slices.ContainsFunc(pod.Spec.Containers, named):
			return "has a proxy of " + m.Name + " (container " + m.Container + ")"
		case slices.ContainsFunc(pod.Spec.InitContainers, named):
			return "has a proxy of " + m.Name + " (init container " + m.Container + ")"
		}
		if _, annotated := pod.Annotations[m.Annotation]; annotated {
			return "has a proxy of " + m.Name + " (annotation " + m.Annotation + ")"
		}
	}
	return ""
}
