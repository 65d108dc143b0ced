// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// NodeNetworks are the addresses that the node's kernel takes for its own, also
	// those that its object does not name. Host mode asks for them.
	NodeNetworks []netip.Prefix
}

// Build computes the node's view of the objects. It never fails: an object
// that can't be used as written costs a Problem and nothing else. Neither in
// nor anything it points to is written to, and the order of its lists does not
// matter.
func Build(in Inputs, opts Options) *Node { return NewBuilder(opts).Build(in) }

// Builder builds one Node after another, each from all objects. What the last
// Build computed from the very same objects it takes over; objects are the same
// when their pointers are, so they must not be written to. A Builder is not safe
// for concurrent use.
type Builder struct {
	opts     Options
	pods     podsMemo
	services servicesMemo
	last     *Node
}

// NewBuilder makes a Builder that has built nothing yet.
func NewBuilder(opts Options) *Builder { return &Builder{opts: opts} }

// Build computes the same Node as the function Build.
func (b *Builder) Build(in Inputs) *Node {
	node := &Node{Name: in.NodeName, objects: in}
	if in.Node != nil {
		node.Region = in.Node.Labels[corev1.LabelTopologyRegion]
		node.Zone = in.Node.Labels[corev1.LabelTopologyZone]
	}
	var problems problems
	node.Pods = b.pods.build(in, b.opts, &problems)
	node.Telemetry = telemetry(in.Namespaces, b.opts, &problems)
	node.enrolment = b.pods.rules
	reader := serviceReader{nodeName: node.Name, zone: node.Zone, opts: b.opts, offLimits: newOffLimits(in, b.opts)}
	node.Frontends = b.services.frontends(in, reader, &problems)
	node.Problems = problems.sorted()
	node.byAddress = byAddress(node.Frontends, b.last)
	b.last = node
	return node
}

// byAddress is the index of frontends by address. It is that of the last node,
// which may be nil, if that has the same addresses.
func byAddress(frontends []*Frontend, last *Node) map[netip.AddrPort]int {
	same := func(x, y *Frontend) bool { return x == y || x.Address == y.Address }
	if last != nil && slices.EqualFunc(frontends, last.Frontends, same) {
		return last.byAddress
	}
	index := make(map[netip.AddrPort]int, len(frontends))
	for i, f := range frontends {
		index[f.Address] = i
	}
	return index
}

// redirectLabel reads the label of an object; a value that is neither enabled
// nor disabled reads as unset.
func redirectLabel(labels map[string]string) string {
	if value := labels[RedirectLabel]; value == RedirectEnabled || value == RedirectDisabled {
		return value
	}
	return ""
}

// checkLabel reports a label of another value than the two it may have.
func (p *problems) checkLabel(kind string, meta *metav1.ObjectMeta) {
	if value, set := meta.Labels[RedirectLabel]; set && redirectLabel(meta.Labels) == "" {
		p.add(kind, meta, "metadata.labels["+RedirectLabel+"]",
			"value "+value+" is neither "+RedirectEnabled+" nor "+RedirectDisabled+"; treated as not set")
	}
}

// parseAddress reads one address of a pod, a Service or an endpoint. The fault is
// why none can have it, empty when it can be used.
func parseAddress(text string) (ip netip.Addr, fault string) {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return ip, "is not an IP address"
	}
	switch ip = ip.Unmap(); {
	case ip.Zone() != "":
		return ip, "has a zone"
	case ip.IsUnspecified():
		return ip, "is unspecified"
	case ip.IsLoopback():
		return ip, "is a loopback address"
	case ip.IsLinkLocalUnicast():
		return ip, "is a link-local address"
	case ip.IsMulticast():
		return ip, "is a multicast address"
	}
	return ip, ""
}
