// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/check"
)

const (
	// image is what a release's pods run.
	image = "ghcr.io/nodevoy/nodevoy"
	// checkLabel marks what was made for a check.
	checkLabel = "nodevoy.io/check"
	// pollInterval is how often the pods are looked at, cleanupLimit how long their
	// removal may take to be taken in.
	pollInterval = 500 * time.Millisecond
	cleanupLimit = 30 * time.Second
	// maxReport bounds what is read of a pod's log.
	maxReport = 1 << 20
)

// checkPods examines nodes without an agent, by a pod on each that does it and ends.
type checkPods struct {
	none    bool
	image   string
	timeout time.Duration
	stderr  func() io.Writer
}

// flags gives the command check those that are about these pods.
func (k *checkPods) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&k.none, "no-pods", false, "don't start pods on nodes without an agent; these are not checked then")
	f.StringVar(&k.image, "image", "", "image of these pods (default: that of an agent, or of this release)")
	f.DurationVar(&k.timeout, "timeout", 2*time.Minute, "how long these pods may take, the pull of their image included")
	k.stderr = cmd.ErrOrStderr
	cmd.Long += "\n\nOn a node without an agent, the check is made by a pod that has an agent's rights on the node: it is in the\n" +
		"host's network, with the capabilities NET_ADMIN, NET_RAW, SYS_ADMIN and SYS_PTRACE, and with /run of the node. These\n" +
		"pods are in a namespace of their own, which is deleted at the end, also after an interrupt."
}

// run examines the nodes named by bare.
func (k *checkPods) run(ctx context.Context, c *cluster, nodes []node, bare []string) map[string]ask.Result[check.Report] {
	results := map[string]ask.Result[check.Report]{}
	fail := func(err error) map[string]ask.Result[check.Report] {
		for _, name := range bare {
			if _, is := results[name]; !is {
				results[name] = noReport(name, err)
			}
		}
		return results
	}
	if k.none {
		for _, name := range bare {
			results[name] = ask.Result[check.Report]{Node: name, State: ask.NotRunning, Error: ask.ErrNotRunning.Error(), Err: ask.ErrNotRunning}
		}
		return results
	}
	namespace, err := c.client.CoreV1().Namespaces().Create(ctx, checkNamespace(), metav1.CreateOptions{})
	if err != nil {
		return fail(fmt.Errorf("make a namespace for the pods of the check: %w", err))
	}
	fmt.Fprintf(k.stderr(), "checking %d nodes without an agent by a pod on each, in namespace %s, which is deleted at the end\n", len(bare), namespace.Name)
	err = k.examine(ctx, c, checkRun{namespace.Name, k.imageFor(nodes), bare}, results)
	return fail(errors.Join(err, remove(ctx, c, namespace.Name)))
}

// remove deletes the namespace and all in it, also if ctx has ended.
func remove(ctx context.Context, c *cluster, namespace string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
	defer cancel()
	if err := c.client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete namespace %s, which is yours to do now: %w", namespace, err)
	}
	return nil
}

// imageFor is what the pods run.
func (k *checkPods) imageFor(nodes []node) string {
	if k.image != "" {
		return k.image
	}
	for _, n := range nodes {
		if n.agent == nil {
			continue
		}
		for _, one := range n.agent.Spec.Containers {
			if one.Name == container {
				return one.Image
			}
		}
	}
	return image + ":" + strings.TrimPrefix(version, "v")
}

// checkRun is one run of the check on some nodes.
type checkRun struct {
	namespace, image string
	nodes            []string
}

// examine starts a pod on each node and reads the reports of those that end in time.
func (k *checkPods) examine(ctx context.Context, c *cluster, r checkRun, results map[string]ask.Result[check.Report]) error {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	pods := c.client.CoreV1().Pods(r.namespace)
	for i, name := range r.nodes {
		if _, err := pods.Create(ctx, checkPod(fmt.Sprintf("check-%d", i), name, r.image, k.timeout), metav1.CreateOptions{}); err != nil {
			results[name] = noReport(name, fmt.Errorf("make the pod of the check: %w", err))
		}
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	last := map[string]string{}
	for {
		list, err := pods.List(ctx, metav1.ListOptions{})
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("look at the pods of the check: %w", err)
		}
		for i := range list.Items {
			pod := &list.Items[i]
			name := pod.Spec.NodeName
			if _, is := results[name]; !is && ended(pod) {
				results[name] = c.reportOf(ctx, pod)
			}
			last[name] = waitsFor(pod)
		}
		if len(results) == len(r.nodes) {
			return nil
		}
		select {
		case <-ctx.Done():
			for _, name := range r.nodes {
				if _, is := results[name]; !is {
					results[name] = noReport(name, fmt.Errorf("the pod of the check has not ended: %s", last[name]))
				}
			}
			return nil
		case <-tick.C:
		}
	}
}

// reportOf reads the report from a pod's log.
func (c *cluster) reportOf(ctx context.Context, pod *corev1.Pod) ask.Result[check.Report] {
	limit := int64(maxReport)
	text, err := c.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{LimitBytes: &limit}).DoRaw(ctx)
	if err != nil {
		return noReport(pod.Spec.NodeName, fmt.Errorf("read the log of the check's pod: %w", err))
	}
	report, err := readReport(text)
	if err != nil {
		return noReport(pod.Spec.NodeName, fmt.Errorf("the check's pod said %q: %w", strings.TrimSpace(string(text[:min(len(text), maxSaid)])), err))
	}
	return ask.Result[check.Report]{Node: pod.Spec.NodeName, State: ask.Answered, Answer: &report}
}

// waitsFor is what a pod waits for.
func waitsFor(pod *corev1.Pod) string {
	for _, s := range pod.Status.ContainerStatuses {
		if w := s.State.Waiting; w != nil {
			return strings.TrimSuffix(w.Reason+": "+w.Message, ": ")
		}
	}
	return string(pod.Status.Phase)
}

func checkNamespace() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "nodevoy-check-", Labels: map[string]string{
		checkLabel: "true", "app.kubernetes.io/managed-by": "kubectl-nodevoy",
		// What an agent needs, too.
		"pod-security.kubernetes.io/enforce": "privileged",
	}}}
}

// checkPod is a pod that examines a node as an agent would see it.
func checkPod(name, node, image string, timeout time.Duration) *corev1.Pod {
	no, yes, root := false, true, int64(0)
	deadline, grace := int64(timeout.Seconds())+1, int64(0)
	toContainer := corev1.MountPropagationHostToContainer
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{checkLabel: "true"}},
		Spec: corev1.PodSpec{
			// As a pod of a DaemonSet, whatever the node's taints are.
			NodeName: node, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			HostNetwork: true, HostPID: true, RestartPolicy: corev1.RestartPolicyNever,
			ActiveDeadlineSeconds: &deadline, TerminationGracePeriodSeconds: &grace,
			AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: &root, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "check", Image: image,
				Command: []string{"nodevoy", "check", "-o", "json", "--node-name", node, "--netns-dir", "/run/netns", "--netns-dir", "/run/docker/netns"},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: &no, Privileged: &no, ReadOnlyRootFilesystem: &yes,
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"}},
				},
				// The lock of iptables, and the namespaces of pods. One mount makes nothing on a
				// node that has none of them.
				VolumeMounts: []corev1.VolumeMount{{Name: "run", MountPath: "/run", MountPropagation: &toContainer}},
			}},
			Volumes: []corev1.Volume{{Name: "run", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/run"}}}},
		},
	}
}
