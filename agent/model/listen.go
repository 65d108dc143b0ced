// SPDX-License-Identifier: Apache-2.0

package model

// Ports are the ports of Envoy's listeners, one for each capture class.
type Ports struct {
	TCP, HTTP, Detect uint16
}

// Of is the port of the listener that takes a class.
func (p Ports) Of(c Class) uint16 {
	switch c {
	case ClassHTTP:
		return p.HTTP
	case ClassTCP:
		return p.TCP
	default:
		return p.Detect
	}
}

// All are the three of them.
func (p Ports) All() []uint16 { return []uint16{p.TCP, p.HTTP, p.Detect} }

// PodTarget is the network namespace of a pod in which Envoy listens, in pod
// mode, for what the pod sends.
type PodTarget struct {
	// Namespace, Pod and UID name the pod; the UID tells it from others that had
	// its name.
	Namespace, Pod, UID string
	// Netns is the path of its network namespace, as Envoy sees it.
	Netns string
	// V4 and V6 say for which address families Envoy listens.
	V4, V6 bool
}

// Name is the pod's namespace/name, as logs have it.
func (t PodTarget) Name() string { return t.Namespace + "/" + t.Pod }
