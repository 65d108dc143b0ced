// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// podsMemo is the last list of pods, and everything it was computed from.
type podsMemo struct {
	rules    enrolment
	pods     []Pod
	problems problems
}

// build decides about every pod of this node.
func (m *podsMemo) build(in Inputs, opts Options, p *problems) []Pod {
	rules := enrolment{
		opts: opts, node: in.Node, local: localPods(in), namespaces: namespaceLabels(in.Namespaces, opts, p),
	}
	if m.pods == nil || !m.rules.same(&rules) {
		*m = podsMemo{rules: rules}
		m.pods = rules.pods(&m.problems)
	}
	p.addAll(m.problems)
	return m.pods
}

// IfLabelled decides about the node's pods as if every namespace had the label that
// enrolls its pods: in the order of Pods.
func (n *Node) IfLabelled() []Pod {
	rules := n.enrolment
	rules.namespaces = map[string]string{}
	for _, pod := range rules.local {
		rules.namespaces[pod.Namespace] = RedirectEnabled
	}
	return rules.pods(&problems{})
}

// enrolment is everything that decides whether pods are enrolled.
type enrolment struct {
	opts Options
	// node is the node's object, or nil.
	node *corev1.Node
	// local are the node's pods, sorted by namespace and name.
	local []*corev1.Pod
	// namespaces says of each known namespace what namespaceLabels found.
	namespaces map[string]string
}

// same says whether two enrolments with the same options must give the same pods.
func (e *enrolment) same(other *enrolment) bool {
	return e.node == other.node && slices.Equal(e.local, other.local) && maps.Equal(e.namespaces, other.namespaces)
}

// pods decides about every local pod.
func (e *enrolment) pods(p *problems) []Pod {
	owners := e.ipOwners(p)
	pods := make([]Pod, 0, len(e.local))
	for i, pod := range e.local {
		p.checkLabel(kindPod, &pod.ObjectMeta)
		view := Pod{
			Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Workload: workload(pod), Terminating: pod.DeletionTimestamp != nil,
		}
		ips := podIPs(pod, nil)
		var lost string
		for _, ip := range ips {
			switch owner := owners[ip]; owner {
			case i:
				view.IPs = append(view.IPs, ip)
			case ownedByNode:
				lost = ip.String() + " is the node's own IP"
			default:
				lost = "IP " + ip.String() + " now belongs to " + e.local[owner].Namespace + "/" + e.local[owner].Name
			}
		}
		view.Enrolled, view.Reason = e.optedIn(pod)
		port, taken := e.declaresListener(pod)
		switch proxy := otherMesh(pod); {
		case !view.Enrolled:
		case proxy != "":
			view.Enrolled, view.Reason = false, proxy
		case taken:
			view.Enrolled, view.Reason = false, fmt.Sprintf("declares port %d, which Envoy needs in enrolled pods", port)
			p.add(kindPod, &pod.ObjectMeta, "spec.containers.ports", fmt.Sprintf("%d is a port that Envoy needs in enrolled pods; not redirected", port))
		case len(ips) == 0:
			view.Enrolled, view.Reason = false, "no IP yet"
		case len(view.IPs) == 0:
			view.Enrolled, view.Reason = false, lost
		case lost != "":
			view.Reason += "; " + lost
		}
		pods = append(pods, view)
	}
	return pods
}

// optedIn is what the labels and the kind of pod say about redirecting it.
func (e *enrolment) optedIn(pod *corev1.Pod) (bool, string) {
	own := redirectLabel(pod.Labels)
	namespace, known := e.namespaces[pod.Namespace]
	switch {
	case pod.Spec.HostNetwork:
		return false, "uses the node's network (hostNetwork)"
	case finished(pod):
		return false, "finished (" + string(pod.Status.Phase) + ")"
	case e.opts.excluded(pod.Namespace):
		return false, "namespace is excluded"
	case own == RedirectDisabled:
		return false, "own label " + RedirectLabel + "=" + RedirectDisabled
	case namespace == RedirectDisabled:
		return false, "namespace label " + RedirectLabel + "=" + RedirectDisabled
	case own == RedirectEnabled && e.opts.podsOptIn(pod.Namespace):
		return true, "own label " + RedirectLabel + "=" + RedirectEnabled
	case namespace == RedirectEnabled:
		return true, "namespace label " + e.opts.NamespaceSelector.String()
	case own == RedirectEnabled:
		// Envoy calls backends as the node: a pod that may enroll itself passes every
		// NetworkPolicy that denies it.
		return false, "own label ignored in host mode: " + e.notOptedIn(known)
	default:
		return false, e.notOptedIn(known)
	}
}

// notOptedIn is why the namespace of a pod does not enroll it. known says whether
// there is the namespace.
func (e *enrolment) notOptedIn(known bool) string {
	if !known {
		return "namespace does not exist (deleted, or not seen yet)"
	}
	return "namespace is not labelled " + e.opts.NamespaceSelector.String()
}

// declaresListener is the first port that a container of the pod declares and Envoy may
// listen on: the pod's application, which may start later, would fail to.
func (e *enrolment) declaresListener(pod *corev1.Pod) (uint16, bool) {
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			for _, port := range containers[i].Ports {
				if IsTCP(port.Protocol) && slices.Contains(e.opts.ListenerPorts, uint16(port.ContainerPort)) {
					return uint16(port.ContainerPort), true
				}
			}
		}
	}
	return 0, false
}

// localPods are the pods on this node, sorted by namespace and name.
func localPods(in Inputs) []*corev1.Pod {
	var local []*corev1.Pod
	for _, pod := range in.Pods {
		if pod != nil && pod.Spec.NodeName == in.NodeName && in.NodeName != "" {
			local = append(local, pod)
		}
	}
	slices.SortFunc(local, comparePods)
	return local
}

func comparePods(x, y *corev1.Pod) int {
	return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name), cmp.Compare(x.UID, y.UID))
}

// namespaceLabels says of every namespace whether it opts its pods in
// (RedirectEnabled), out (RedirectDisabled), or neither.
func namespaceLabels(namespaces []*corev1.Namespace, opts Options, p *problems) map[string]string {
	labels := make(map[string]string, len(namespaces))
	for _, ns := range namespaces {
		if ns == nil {
			continue
		}
		p.checkLabel(kindNamespace, &ns.ObjectMeta)
		value := redirectLabel(ns.Labels)
		if value != RedirectDisabled {
			value = ""
			if opts.NamespaceSelector.matches(ns.Labels) {
				value = RedirectEnabled
			}
		}
		labels[ns.Name] = value
	}
	return labels
}

// finished pods keep their last IP in their status while the CNI may already
// have given it to another pod.
func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// ownedByNode marks an IP of the node itself, which no pod may own:
// redirecting it would redirect the node.
const ownedByNode = -1

// ipOwners says which pod, by index, owns each IP. Two pods can claim one for
// a moment when the CNI reuses the IP of a pod that is about to go.
func (e *enrolment) ipOwners(p *problems) map[netip.Addr]int {
	owners := make(map[netip.Addr]int, len(e.local))
	for _, ip := range nodeAddresses(e.node) {
		owners[ip] = ownedByNode
	}
	for i, pod := range e.local {
		for _, ip := range podIPs(pod, p) {
			owner, taken := owners[ip]
			if !taken || owner != ownedByNode && ownsBefore(pod, e.local[owner]) {
				owners[ip] = i
			}
		}
	}
	return owners
}

// ownsBefore says whether an IP that both pods hold belongs to x: to the pod
// that is not being deleted, then to the newer one, then to the first by name.
func ownsBefore(x, y *corev1.Pod) bool {
	if xGoing, yGoing := x.DeletionTimestamp != nil, y.DeletionTimestamp != nil; xGoing != yGoing {
		return yGoing
	}
	if !x.CreationTimestamp.Equal(&y.CreationTimestamp) {
		return y.CreationTimestamp.Before(&x.CreationTimestamp)
	}
	return comparePods(x, y) < 0
}

// podIPs are the addresses a live pod says it has, v4 before v6, each once.
// Unusable ones are reported to p, unless it is nil.
func podIPs(pod *corev1.Pod, p *problems) []netip.Addr {
	if pod.Spec.HostNetwork || finished(pod) {
		return nil
	}
	var ips []netip.Addr
	add := func(text, field string) {
		ip, fault := parseAddress(text)
		switch {
		case text == "":
		case fault != "" && p != nil:
			p.add(kindPod, &pod.ObjectMeta, field, text+" "+fault+"; not redirected")
		case fault == "" && !slices.Contains(ips, ip):
			ips = append(ips, ip)
		}
	}
	for i, podIP := range pod.Status.PodIPs {
		add(podIP.IP, indexed("status.podIPs", i, ".ip"))
	}
	if len(pod.Status.PodIPs) == 0 {
		add(pod.Status.PodIP, "status.podIP")
	}
	slices.SortFunc(ips, netip.Addr.Compare)
	return ips
}
