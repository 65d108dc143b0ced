// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/nodevoy/nodevoy/cmd/internal/commands"
)

// container is the one of the agent in its pod.
const container = "agent"

// cluster is a Kubernetes cluster and nodevoy's agents in it.
type cluster struct {
	set    *settings
	client kubernetes.Interface
	// namespace is that of names without one.
	namespace string
	// exec runs a command in a container; a field for tests.
	exec func(ctx context.Context, of *corev1.Pod, command []string, s streams) error
}

// streams are those of a command.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func openCluster(set *settings) (*cluster, error) {
	config := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(set.rules, &set.overrides)
	cfg, err := config.ClientConfig()
	if err != nil {
		return nil, commands.UsageError{Err: fmt.Errorf("read the kubeconfig: %w", err)}
	}
	// A question to each node of a large cluster is no flood.
	cfg.QPS, cfg.Burst = 100, 200
	cfg.UserAgent = "kubectl-nodevoy/" + version
	namespace, _, err := config.Namespace()
	if err != nil {
		return nil, commands.UsageError{Err: fmt.Errorf("read the kubeconfig: %w", err)}
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	return &cluster{set: set, client: client, namespace: namespace, exec: executor{cfg, client}.run}, nil
}

// executor runs commands in containers.
type executor struct {
	cfg    *rest.Config
	client kubernetes.Interface
}

// run runs a command in the agent's container of a pod, over a WebSocket or, with an
// older API server, over SPDY.
func (e executor) run(ctx context.Context, of *corev1.Pod, command []string, s streams) error {
	url := e.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(of.Namespace).Name(of.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: container, Command: command, Stdin: s.in != nil, Stdout: s.out != nil, Stderr: s.err != nil,
		}, scheme.ParameterCodec).URL()
	socket, err := remotecommand.NewWebSocketExecutor(e.cfg, http.MethodGet, url.String())
	if err != nil {
		return err
	}
	spdy, err := remotecommand.NewSPDYExecutor(e.cfg, http.MethodPost, url)
	if err != nil {
		return err
	}
	both, err := remotecommand.NewFallbackExecutor(socket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return err
	}
	return both.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: s.in, Stdout: s.out, Stderr: s.err})
}

// node is a node and the pod of its agent, nil if it has none.
type node struct {
	name  string
	agent *corev1.Pod
}

// nodes are those that were asked for, or all, sorted by name: those of agents' pods,
// and all others as far as the user may list nodes.
func (c *cluster) nodes(ctx context.Context) ([]node, error) {
	pods, err := c.client.CoreV1().Pods(c.set.namespace).List(ctx, metav1.ListOptions{LabelSelector: c.set.selector})
	if apierrors.IsForbidden(err) && c.set.namespace == "" {
		return nil, fmt.Errorf("look for nodevoy's agents: %w: if you may list pods in its namespace, name that by --nodevoy-namespace", err)
	}
	if err != nil {
		return nil, fmt.Errorf("look for nodevoy's agents: %w", err)
	}
	agents := map[string]*corev1.Pod{}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Spec.NodeName != "" && isAgent(pod) && (agents[pod.Spec.NodeName] == nil || better(pod, agents[pod.Spec.NodeName])) {
			agents[pod.Spec.NodeName] = pod
		}
	}
	names, err := c.nodeNames(ctx)
	if err != nil {
		return nil, err
	}
	for name := range agents {
		names = append(names, name)
	}
	slices.Sort(names)
	var all []node
	for _, name := range slices.Compact(names) {
		if len(c.set.nodes) == 0 || slices.Contains(c.set.nodes, name) {
			all = append(all, node{name, agents[name]})
		}
	}
	if len(c.set.nodes) > len(all) {
		return nil, commands.UsageError{Err: fmt.Errorf("--node: only %d of %d nodes exist", len(all), len(c.set.nodes))}
	}
	return all, nil
}

// nodeNames are those of Linux, on which agents might run.
func (c *cluster) nodeNames(ctx context.Context) ([]string, error) {
	list, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: corev1.LabelOSStable + "=linux"})
	if apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	return names, nil
}

// isAgent tells pods of the DaemonSet from others of the chart.
func isAgent(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "DaemonSet" &&
		slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == container })
}

// better says which of two agents of a node does its work, which there are in an update.
func better(a, b *corev1.Pod) bool {
	rank := func(p *corev1.Pod) int {
		n := 0
		if p.DeletionTimestamp == nil {
			n += 4
		}
		if ready(p) {
			n += 2
		}
		if p.Status.Phase == corev1.PodRunning {
			n++
		}
		return n
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time)) > 0
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// whyNot is why the agent's container of a pod can't be entered; nil if it can.
func whyNot(p *corev1.Pod) error {
	for _, s := range p.Status.ContainerStatuses {
		switch {
		case s.Name != container || s.State.Running != nil:
		case s.State.Waiting != nil:
			return fmt.Errorf("the agent in pod %s/%s is not running: %s", p.Namespace, p.Name, s.State.Waiting.Reason)
		case s.State.Terminated != nil:
			return fmt.Errorf("the agent in pod %s/%s has ended: %s", p.Namespace, p.Name, s.State.Terminated.Reason)
		}
	}
	if p.Status.Phase != corev1.PodRunning {
		return fmt.Errorf("pod %s/%s is %s", p.Namespace, p.Name, cmp.Or(string(p.Status.Phase), "not started"))
	}
	return nil
}

// someNodes are the nodes in question, of which there has to be one.
func (c *cluster) someNodes(ctx context.Context) ([]node, error) {
	nodes, err := c.nodes(ctx)
	if err == nil && len(nodes) == 0 {
		err = commands.NotRunningError{Err: errors.New("no agent of nodevoy found, and no node to be seen")}
	}
	return nodes, err
}
