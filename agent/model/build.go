// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Build computes the node's view of the objects. It never fails: an object
// that can't be used as written costs a Problem and nothing else. Neither in
// nor anything it points to is written to, and the order of its lists does not
// matter.
func Build(in Inputs, opts Options) *Node {
	b := &builder{in: in, opts: opts}
	node := &Node{Name: in.NodeName}
	if in.Node != nil {
		node.Region = in.Node.Labels[corev1.LabelTopologyRegion]
		node.Zone = in.Node.Labels[corev1.LabelTopologyZone]
	}
	b.zone = node.Zone

	node.Pods = b.pods()
	node.Frontends = b.frontends()
	node.Problems = b.problems.sorted()

	node.byAddress = make(map[netip.AddrPort]int, len(node.Frontends))
	for i := range node.Frontends {
		node.byAddress[node.Frontends[i].Address] = i
	}
	return node
}

// builder is the state of one Build.
type builder struct {
	in       Inputs
	opts     Options
	zone     string
	problems problems
	// scratch is reused from one Service to the next.
	scratch endpointScratch
}

func (b *builder) excluded(namespace string) bool {
	return slices.Contains(b.opts.ExcludedNamespaces, namespace)
}

// redirectLabel reads the label of an object; a value that is neither enabled
// nor disabled reads as unset.
func redirectLabel(labels map[string]string) (value string, invalid bool) {
	value, set := labels[RedirectLabel]
	switch {
	case !set, value == RedirectEnabled, value == RedirectDisabled:
		return value, false
	default:
		return "", true
	}
}

// invalidLabel is the Detail of a Problem with the label.
func invalidLabel(labels map[string]string) string {
	return "value " + labels[RedirectLabel] + " is neither " + RedirectEnabled + " nor " + RedirectDisabled +
		"; treated as not set"
}

// labelField is the path of the label in every kind.
const labelField = "metadata.labels[" + RedirectLabel + "]"

// unusableAddress says why a pod, a Service or an endpoint can't have the
// address; empty when it can.
func unusableAddress(ip netip.Addr) string {
	switch {
	case ip.Zone() != "":
		return "has a zone"
	case ip.IsUnspecified():
		return "is unspecified"
	case ip.IsLoopback():
		return "is a loopback address"
	case ip.IsLinkLocalUnicast():
		return "is a link-local address"
	case ip.IsMulticast():
		return "is a multicast address"
	default:
		return ""
	}
}

// parseAddress reads one address of an object. The fault is empty when the
// address can be used.
func parseAddress(text string) (ip netip.Addr, fault string) {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, "is not an IP address"
	}
	ip = ip.Unmap()
	if fault := unusableAddress(ip); fault != "" {
		return netip.Addr{}, fault
	}
	return ip, ""
}
