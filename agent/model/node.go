// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"slices"
	"strconv"
)

// Node is everything one node needs to know, computed from Inputs by Build.
// It is immutable once built and safe to share between goroutines.
type Node struct {
	// Name, Region and Zone are the node's own, from its Node object; Region
	// and Zone are empty when the node has no topology labels.
	Name, Region, Zone string
	// Pods are the pods on this node, enrolled or not, sorted by namespace and name.
	Pods []Pod
	// Frontends are all addresses at which a pod may reach a Service port by
	// TCP, sorted by address, each at most once. Nodes of one Builder share those
	// that did not change.
	Frontends []*Frontend
	// Telemetry is what namespaces say about the calls of their pods, by name: of those
	// that say anything.
	Telemetry map[string]Telemetry
	// Problems are the objects that could not be used as written, sorted.
	Problems []Problem

	// byAddress has the index of each of Frontends.
	byAddress map[netip.AddrPort]int
	// enrolment is what decided about Pods, and objects are what the node was built from,
	// for questions that are rarely asked: see IfLabelled, Directory and Service.
	enrolment enrolment
	objects   Inputs
}

// Frontend finds the frontend with this address; false when no Service has it.
func (n *Node) Frontend(addr netip.AddrPort) (*Frontend, bool) {
	i, ok := n.byAddress[addr]
	if !ok {
		return nil, false
	}
	return n.Frontends[i], true
}

// Bypassing returns a copy of the node in which those frontends are bypassed for
// which why gives a reason.
func (n *Node) Bypassing(why func(*Frontend) string) *Node {
	gated := *n
	gated.Frontends = slices.Clone(n.Frontends)
	for i, f := range n.Frontends {
		if reason := why(f); reason != "" && f.Bypass == "" {
			bypassed := *f
			bypassed.Bypass = reason
			gated.Frontends[i] = &bypassed
		}
	}
	return &gated
}

// Keeping returns a copy of the node that also has the redirected frontends of an
// earlier node which this one lacks or bypasses: connections may still be sent to
// them.
func (n *Node) Keeping(earlier *Node) *Node {
	kept := *n
	kept.Frontends = slices.Clone(n.Frontends)
	for _, f := range earlier.Frontends {
		if f.Bypass != "" {
			continue
		}
		switch at, ok := n.byAddress[f.Address]; {
		case !ok:
			kept.Frontends = append(kept.Frontends, f)
		case kept.Frontends[at].Bypass != "":
			kept.Frontends[at] = f
		}
	}
	slices.SortFunc(kept.Frontends, func(a, b *Frontend) int { return a.Address.Compare(b.Address) })
	kept.byAddress = byAddress(kept.Frontends, nil)
	return &kept
}

// Pod is a pod on this node and the verdict about it.
type Pod struct {
	Namespace, Name, UID string
	// Workload is the name of what runs the pod, such as its Deployment; the pod's own
	// if nothing does. Function WorkloadOf has it for backends.
	Workload string
	// IPs are the pod's own addresses that belong to nobody else, v4 before
	// v6; empty until it has one.
	IPs []netip.Addr
	// Terminating is set once the pod is being deleted: it may lose its network
	// namespace at any moment.
	Terminating bool
	// Enrolled says whether connections from IPs are redirected.
	Enrolled bool
	// Reason says in a few words why the pod is, or is not, enrolled.
	Reason string
}

// PodTarget is the network namespace of a pod in which Envoy listens, in pod
// mode, for what the pod sends.
type PodTarget struct {
	// Namespace, Pod and UID name the pod; the UID tells it from others that had
	// its name.
	Namespace, Pod, UID string
	// Workload is what runs it, as Pod has it.
	Workload string
	// Netns is the path of its network namespace, as Envoy sees it.
	Netns string
	// V4 and V6 say for which address families Envoy listens.
	V4, V6 bool
}

// Name is the pod's namespace/name, as logs have it.
func (t PodTarget) Name() string { return t.Namespace + "/" + t.Pod }

// ServicePort names one port of one Service.
type ServicePort struct {
	Namespace, Service string
	// PortName is the port's name; empty only in a Service of one port.
	PortName string
	Port     uint16
}

// ServiceName is namespace/service.
func (p ServicePort) ServiceName() string { return p.Namespace + "/" + p.Service }

// Label is the port's name if it has one, else its number.
func (p ServicePort) Label() string {
	if p.PortName != "" {
		return p.PortName
	}
	return strconv.Itoa(int(p.Port))
}

// String is namespace/service/port, the port by its label: the name under which logs and
// metrics know the Service port.
func (p ServicePort) String() string { return p.ServiceName() + "/" + p.Label() }

// Frontend is one address at which pods reach one Service port. It is immutable.
type Frontend struct {
	Address netip.AddrPort
	Port    ServicePort
	// Class decides which listener takes the connection; ClassReason says why.
	Class       Class
	ClassReason string
	// NamedHTTP is set if the protocol is detected though the port's name is one of
	// HTTP: until Envoy sees what it is.
	NamedHTTP bool
	// Bypass is empty when enrolled pods' connections go to Envoy, else the
	// reason why they are left to kube-proxy. A bypassed frontend is in
	// neither the kernel's sets nor xDS.
	Bypass string
	// Backends are those this node should use, of the frontend's own address
	// family, sorted by address; nil for a bypassed frontend. Frontends of one
	// Service port share the slice.
	Backends []Backend
}

// Redirected says whether the kernel sends connections for the frontend to
// Envoy. One without backends stays with kube-proxy, which refuses the
// connection at once, as it did before nodevoy.
func (f *Frontend) Redirected() bool { return f.Bypass == "" && len(f.Backends) > 0 }

// Backend is one endpoint of a Service port.
type Backend struct {
	Address netip.AddrPort
	// Namespace and Pod name the pod behind the address; Pod is empty for an
	// endpoint that is not a pod.
	Namespace, Pod string
	// Node and Zone say where it runs; empty when its EndpointSlice does not.
	Node, Zone string
	// Terminating is set for a serving-terminating endpoint, which is used
	// only while the Service port has no ready one.
	Terminating bool
}

// Class is the capture class of a frontend: which of Envoy's listeners takes
// its connections.
type Class uint8

// The capture classes.
const (
	// ClassDetect looks at the first bytes to tell HTTP from anything else.
	ClassDetect Class = iota
	// ClassHTTP is HTTP/1 or HTTP/2 in clear text, gRPC included.
	ClassHTTP
	// ClassTCP is bytes, never looked at.
	ClassTCP
)

// Classes lists every capture class, in the order rules and listeners use.
func Classes() []Class { return []Class{ClassHTTP, ClassTCP, ClassDetect} }

// String is the class as logs, tables and set names write it.
func (c Class) String() string {
	switch c {
	case ClassHTTP:
		return "http"
	case ClassTCP:
		return "tcp"
	default:
		return "detect"
	}
}

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

// Problem is something a user wrote that can't be used as written. The rest of
// the object, and every other object, is used all the same.
type Problem struct {
	// Kind, Namespace and Name are the object's; Field is the path of the
	// offending field, as the API server writes it: spec.ports[1].name.
	Kind, Namespace, Name, Field string
	// Detail says what is wrong and what was done instead.
	Detail string
}
