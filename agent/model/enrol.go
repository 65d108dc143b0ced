// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// pods judges every pod of this node.
func (b *builder) pods() []Pod {
	local := b.localPods()
	namespaces := b.namespaceLabels()
	owners := b.ipOwners(local)

	pods := make([]Pod, 0, len(local))
	for i, pod := range local {
		p := Pod{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID)}
		ips := b.podIPs(pod, nil)
		var lost string
		for _, ip := range ips {
			switch owner := owners[ip]; owner {
			case i:
				p.IPs = append(p.IPs, ip)
			case ownedByNode:
				lost = ip.String() + " is the node's own IP"
			default:
				lost = "IP " + ip.String() + " now belongs to " + local[owner].Namespace + "/" + local[owner].Name
			}
		}
		p.Enrolled, p.Reason = b.enrolled(pod, namespaces)
		switch {
		case p.Enrolled && len(ips) == 0:
			p.Enrolled, p.Reason = false, "no IP yet"
		case p.Enrolled && len(p.IPs) == 0:
			p.Enrolled, p.Reason = false, lost
		case p.Enrolled && lost != "":
			p.Reason += "; " + lost
		}
		pods = append(pods, p)
	}
	return pods
}

// enrolled is the one predicate: whether the pod is meant to be redirected,
// and why. What remains to be seen is whether it has an IP to redirect.
func (b *builder) enrolled(pod *corev1.Pod, namespaces map[string]string) (bool, string) {
	wanted, reason := b.wanted(pod, namespaces)
	if proxy := meshed(pod); wanted && proxy != "" {
		return false, proxy
	}
	return wanted, reason
}

// wanted is what the labels and the kind of pod say about redirecting it.
func (b *builder) wanted(pod *corev1.Pod, namespaces map[string]string) (bool, string) {
	own, _ := redirectLabel(pod.Labels)
	namespace, known := namespaces[pod.Namespace]
	switch {
	case pod.Spec.HostNetwork:
		return false, "uses the node's network (hostNetwork)"
	case finished(pod):
		return false, "finished (" + string(pod.Status.Phase) + ")"
	case b.excluded(pod.Namespace):
		return false, "namespace is excluded"
	case own == RedirectDisabled:
		return false, "own label " + RedirectLabel + "=" + RedirectDisabled
	case own == RedirectEnabled:
		return true, "own label " + RedirectLabel + "=" + RedirectEnabled
	case !known:
		return false, "namespace does not exist (deleted, or not seen yet)"
	case namespace == RedirectDisabled:
		return false, "namespace label " + RedirectLabel + "=" + RedirectDisabled
	case namespace == RedirectEnabled:
		return true, "namespace label " + b.opts.NamespaceSelector.String()
	default:
		return false, "namespace is not labelled " + b.opts.NamespaceSelector.String()
	}
}

// localPods are the pods on this node, sorted by namespace and name.
func (b *builder) localPods() []*corev1.Pod {
	var local []*corev1.Pod
	for _, pod := range b.in.Pods {
		if pod == nil || pod.Spec.NodeName != b.in.NodeName || b.in.NodeName == "" {
			continue
		}
		local = append(local, pod)
		if _, invalid := redirectLabel(pod.Labels); invalid {
			b.problems.add(kindPod, &pod.ObjectMeta, labelField, invalidLabel(pod.Labels))
		}
	}
	slices.SortFunc(local, func(x, y *corev1.Pod) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name), cmp.Compare(x.UID, y.UID))
	})
	return local
}

// namespaceLabels says of every known namespace whether it opts its pods in
// (RedirectEnabled), out (RedirectDisabled), or neither.
func (b *builder) namespaceLabels() map[string]string {
	labels := make(map[string]string, len(b.in.Namespaces))
	for _, ns := range b.in.Namespaces {
		if ns == nil {
			continue
		}
		value, invalid := redirectLabel(ns.Labels)
		if invalid {
			b.problems.add(kindNamespace, &ns.ObjectMeta, labelField, invalidLabel(ns.Labels))
		}
		if value != RedirectDisabled {
			value = ""
			if b.opts.NamespaceSelector.matches(ns.Labels) {
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
func (b *builder) ipOwners(local []*corev1.Pod) map[netip.Addr]int {
	owners := make(map[netip.Addr]int, len(local))
	if b.in.Node != nil {
		for _, address := range b.in.Node.Status.Addresses {
			if ip, err := netip.ParseAddr(address.Address); err == nil {
				owners[ip.Unmap()] = ownedByNode
			}
		}
	}
	for i, pod := range local {
		for _, ip := range b.podIPs(pod, &b.problems) {
			owner, taken := owners[ip]
			if !taken || owner != ownedByNode && claimsBetter(pod, local[owner]) {
				owners[ip] = i
			}
		}
	}
	return owners
}

// claimsBetter says whether an IP both pods hold belongs to x: to the pod that
// is not being deleted, then to the newer one, then to the first by name.
func claimsBetter(x, y *corev1.Pod) bool {
	if xGoing, yGoing := x.DeletionTimestamp != nil, y.DeletionTimestamp != nil; xGoing != yGoing {
		return yGoing
	}
	if !x.CreationTimestamp.Equal(&y.CreationTimestamp) {
		return y.CreationTimestamp.Before(&x.CreationTimestamp)
	}
	return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name), cmp.Compare(x.UID, y.UID)) < 0
}

// podIPs are the addresses a live pod says it has, v4 before v6, each once.
// Unusable ones are told to p, when there is one.
func (b *builder) podIPs(pod *corev1.Pod, p *problems) []netip.Addr {
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
