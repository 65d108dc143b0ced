// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/nodevoy/nodevoy/agent/ask"
)

// fixture is a cluster of three nodes: a has an agent that answers, b one that doesn't,
// and c none.
type fixture struct {
	*cluster
	sites *sites
	// checks is what `nodevoy check` prints, by node.
	checks map[string]string
}

func newFixture(t *testing.T, answers http.Handler, more ...k8sruntime.Object) *fixture {
	t.Helper()
	objects := append([]k8sruntime.Object{
		linux("a"), linux("b"), linux("c"), agentPod("a", "nodevoy-1", true), agentPod("b", "nodevoy-2", true),
		// In an update, the old one.
		agentPod("a", "nodevoy-0", false),
		// One of the chart's tests.
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "test", Namespace: "sys", Labels: labels()}, Spec: corev1.PodSpec{NodeName: "c"}},
	}, more...)
	set := &settings{selector: "app.kubernetes.io/name=nodevoy"}
	f := &fixture{cluster: &cluster{set: set, client: fake.NewClientset(objects...), namespace: "default"}, checks: map[string]string{}}
	srv := httptest.NewServer(answers)
	t.Cleanup(srv.Close)
	f.exec = func(ctx context.Context, of *corev1.Pod, command []string, s streams) error {
		switch {
		case of.Name != "nodevoy-1":
			_, _ = io.WriteString(s.err, "nodevoy: the agent is not running on this node")
			return utilexec.CodeExitError{Err: errors.New("exit"), Code: 3}
		case slices.Contains(command, "check"):
			_, err := io.WriteString(s.out, f.checks[of.Spec.NodeName])
			return errors.Join(err, utilexec.CodeExitError{Err: errors.New("exit"), Code: 1})
		}
		return proxy(ctx, srv.Listener.Addr().String(), s)
	}
	f.sites = &sites{set: set, checks: &checkPods{stderr: func() io.Writer { return io.Discard }}, opened: f.cluster}
	return f
}

// proxy does what `nodevoy debug-proxy` does.
func proxy(ctx context.Context, address string, s streams) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(s.out, ask.Greeting); err != nil {
		return errors.Join(err, conn.Close())
	}
	ended := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(conn, s.in); ended <- struct{}{} }()
	go func() { _, _ = io.Copy(s.out, conn); ended <- struct{}{} }()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return conn.Close()
}

func labels() map[string]string { return map[string]string{"app.kubernetes.io/name": "nodevoy"} }

func linux(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelOSStable: "linux"}}}
}

func agentPod(node, name string, ready bool) *corev1.Pod {
	yes := true
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "sys", Labels: labels(),
			OwnerReferences: []metav1.OwnerReference{{Kind: "DaemonSet", Name: "nodevoy", Controller: &yes}},
		},
		Spec:   corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: container, Image: "registry/nodevoy:v9"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	if ready {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	return p
}

// web are the pods of Deployment shop/web: one on a, one on c, and one that ended.
func web() []k8sruntime.Object {
	selector := map[string]string{"app": "web"}
	pod := func(name, node string, phase corev1.PodPhase) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: selector},
			Spec:       corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase},
		}
	}
	return []k8sruntime.Object{
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop"}, Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: selector}}},
		pod("web-1", "a", corev1.PodRunning), pod("web-2", "c", corev1.PodRunning), pod("web-0", "b", corev1.PodFailed), pod("web-3", "", corev1.PodPending),
	}
}
