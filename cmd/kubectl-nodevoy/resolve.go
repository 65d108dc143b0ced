// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/cmd/internal/commands"
)

// agents are those of the nodes in question.
func (s *sites) agents(ctx context.Context) ([]ask.Agent, error) {
	c, err := s.open()
	if err != nil {
		return nil, err
	}
	nodes, err := c.someNodes(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]ask.Agent, 0, len(nodes))
	for _, n := range nodes {
		all = append(all, c.agentOf(n))
	}
	return all, nil
}

// callers are the pods that words stand for, each with the agent of its node.
func (s *sites) callers(ctx context.Context, words string) ([]commands.Caller, error) {
	c, err := s.open()
	if err != nil {
		return nil, err
	}
	pods, err := c.podsOf(ctx, words)
	if err != nil {
		return nil, err
	}
	nodes, err := c.nodes(ctx)
	if err != nil {
		return nil, err
	}
	agents := map[string]ask.Agent{}
	for _, n := range nodes {
		agents[n.name] = c.agentOf(n)
	}
	var all []commands.Caller
	for i := range pods {
		pod := &pods[i]
		agent, is := agents[pod.Spec.NodeName]
		if !is && len(c.set.nodes) > 0 {
			continue // --node says which of them.
		}
		if !is {
			agent = ask.Absent(pod.Spec.NodeName)
		}
		all = append(all, commands.Caller{From: pod.Namespace + "/" + pod.Name, Agent: agent})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no pod on these nodes", words)
	}
	return all, nil
}

// podsOf are the pods of [NAMESPACE/]POD, [NAMESPACE/]KIND/NAME or an address that are
// on a node.
func (c *cluster) podsOf(ctx context.Context, words string) ([]corev1.Pod, error) {
	if ip, err := netip.ParseAddr(words); err == nil {
		return c.podsAt(ctx, ip)
	}
	ref, err := parseReference(words, c.namespace)
	if err != nil {
		return nil, commands.UsageError{Err: err}
	}
	if ref.kind == podKind {
		pod, err := c.client.CoreV1().Pods(ref.namespace).Get(ctx, ref.name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("find pod %s/%s: %w", ref.namespace, ref.name, err)
		}
		if pod.Spec.NodeName == "" {
			return nil, fmt.Errorf("pod %s/%s is on no node yet", ref.namespace, ref.name)
		}
		return []corev1.Pod{*pod}, nil
	}
	selector, err := c.selectorOf(ctx, ref)
	if err != nil {
		return nil, err
	}
	list, err := c.client.CoreV1().Pods(ref.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list the pods of %s: %w", words, err)
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.Spec.NodeName == "" || ended(&p) })
	if len(pods) == 0 {
		return nil, fmt.Errorf("%s %s/%s has no running pod", ref.kind, ref.namespace, ref.name)
	}
	return pods, nil
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

func (c *cluster) podsAt(ctx context.Context, ip netip.Addr) ([]corev1.Pod, error) {
	list, err := c.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("status.podIP", ip.String()).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("look for the pod with address %s: %w", ip, err)
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return ended(&p) })
	if len(pods) == 0 {
		return nil, fmt.Errorf("no pod has the address %s", ip)
	}
	return pods[:1], nil
}

// podKind is that of words without a kind.
const podKind = "pod"

// reference is an object in somebody's words.
type reference struct{ kind, namespace, name string }

// kindOf is a kind by any of its names; empty for no kind.
func kindOf(word string) string {
	for kind, names := range map[string][]string{
		podKind:       {"po", "pods"},
		"deployment":  {"deploy", "deployments", "deployments.apps", "deployment.apps"},
		"daemonset":   {"ds", "daemonsets", "daemonsets.apps", "daemonset.apps"},
		"statefulset": {"sts", "statefulsets", "statefulsets.apps", "statefulset.apps"},
		"replicaset":  {"rs", "replicasets", "replicasets.apps", "replicaset.apps"},
		"job":         {"jobs", "jobs.batch", "job.batch"},
		"service":     {"svc", "services"},
	} {
		if word == kind || slices.Contains(names, word) {
			return kind
		}
	}
	return ""
}

// parseReference reads [NAMESPACE/]POD or [NAMESPACE/]KIND/NAME.
func parseReference(words, namespace string) (reference, error) {
	parts := strings.Split(words, "/")
	ref := reference{podKind, namespace, parts[len(parts)-1]}
	if len(parts) > 1 && kindOf(parts[len(parts)-2]) != "" {
		ref.kind = kindOf(parts[len(parts)-2])
		parts = parts[:len(parts)-1]
	}
	if len(parts) == 2 && ref.kind == podKind && kindOf(parts[0]) == "" || len(parts) == 2 && ref.kind != podKind {
		ref.namespace = parts[0]
	} else if len(parts) > 1 {
		return ref, fmt.Errorf("%q: want [NAMESPACE/]POD, [NAMESPACE/]KIND/NAME or an IP address", words)
	}
	if ref.name == "" || ref.namespace == "" {
		return ref, fmt.Errorf("%q: want [NAMESPACE/]POD, [NAMESPACE/]KIND/NAME or an IP address", words)
	}
	return ref, nil
}

// selectorOf is the selector of a workload's, or a Service's, pods.
func (c *cluster) selectorOf(ctx context.Context, ref reference) (string, error) {
	selector, err := c.labelsOf(ctx, ref)
	if err != nil {
		return "", fmt.Errorf("find %s %s/%s: %w", ref.kind, ref.namespace, ref.name, err)
	}
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return "", fmt.Errorf("selector of %s %s/%s: %w", ref.kind, ref.namespace, ref.name, err)
	}
	if parsed.Empty() {
		return "", fmt.Errorf("%s %s/%s selects no pods", ref.kind, ref.namespace, ref.name)
	}
	return parsed.String(), nil
}

func (c *cluster) labelsOf(ctx context.Context, ref reference) (*metav1.LabelSelector, error) {
	apps, get := c.client.AppsV1(), metav1.GetOptions{}
	switch ref.kind {
	case "deployment":
		o, err := apps.Deployments(ref.namespace).Get(ctx, ref.name, get)
		return o.Spec.Selector, err
	case "daemonset":
		o, err := apps.DaemonSets(ref.namespace).Get(ctx, ref.name, get)
		return o.Spec.Selector, err
	case "statefulset":
		o, err := apps.StatefulSets(ref.namespace).Get(ctx, ref.name, get)
		return o.Spec.Selector, err
	case "replicaset":
		o, err := apps.ReplicaSets(ref.namespace).Get(ctx, ref.name, get)
		return o.Spec.Selector, err
	case "job":
		o, err := c.client.BatchV1().Jobs(ref.namespace).Get(ctx, ref.name, get)
		return o.Spec.Selector, err
	}
	o, err := c.client.CoreV1().Services(ref.namespace).Get(ctx, ref.name, get)
	return &metav1.LabelSelector{MatchLabels: o.Spec.Selector}, err
}
