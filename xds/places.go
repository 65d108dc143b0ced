// SPDX-License-Identifier: Apache-2.0

package xds

// Place is the network namespace of an enrolled pod, in which Envoy listens
// for that pod in pod mode.
type Place struct {
	// Namespace, Pod and UID name the pod.
	Namespace, Pod, UID string
	// Netns is the path of its network namespace, as Envoy sees it.
	Netns string
	// V4 and V6 say for which address families Envoy listens.
	V4, V6 bool
}
