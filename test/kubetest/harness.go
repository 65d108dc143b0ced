// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/nodevoy/nodevoy/agent/kube"
	"github.com/nodevoy/nodevoy/test/sourcetest"
)

// Harness is a sourcetest.Harness over a real API server.
type Harness struct {
	Client kubernetes.Interface
	// Config says how to reach it.
	Config *rest.Config
}

// FakeHarness is a sourcetest.Harness over a fake one.
type FakeHarness struct{ *Server }

var (
	_ sourcetest.Harness = Harness{}
	_ sourcetest.Harness = FakeHarness{}
)

// Source makes a source that reads the API server.
func (h Harness) Source(t testing.TB, nodeName string) sourcetest.Source {
	return newSource(t, nodeName, h.Config)
}

// Source makes a source that reads the server.
func (h FakeHarness) Source(t testing.TB, nodeName string) sourcetest.Source {
	return newSource(t, nodeName, h.Config())
}

func newSource(t testing.TB, nodeName string, cfg *rest.Config) *kube.Source {
	t.Helper()
	source, err := kube.New(kube.Config{NodeName: nodeName, REST: cfg, Now: time.Now}, zaptest.NewLogger(t))
	if err != nil {
		t.Fatalf("make source: %v", err)
	}
	return source
}

// Put creates or replaces the object.
func (h FakeHarness) Put(_ testing.TB, object sourcetest.Object) { h.Server.Put(object) }

// Delete removes the object.
func (h FakeHarness) Delete(_ testing.TB, object sourcetest.Object) { h.Server.Delete(object) }

// Put creates or replaces the object, then its status.
func (h Harness) Put(t testing.TB, object sourcetest.Object) {
	t.Helper()
	var err error
	core := h.Client.CoreV1()
	switch o := object.DeepCopyObject().(type) {
	case *corev1.Namespace:
		err = put(t.Context(), o, core.Namespaces(), nil)
	case *corev1.Node:
		err = put(t.Context(), o, core.Nodes(), core.Nodes().UpdateStatus)
	case *corev1.Pod:
		err = h.putPod(t.Context(), o)
	case *corev1.Service:
		err = put(t.Context(), o, core.Services(o.Namespace), core.Services(o.Namespace).UpdateStatus)
	case *discoveryv1.EndpointSlice:
		err = put(t.Context(), o, h.Client.DiscoveryV1().EndpointSlices(o.Namespace), nil)
	default:
		t.Fatalf("put %T: not a kind the model reads", object)
	}
	if err != nil {
		t.Fatalf("put %T %s/%s: %v", object, object.GetNamespace(), object.GetName(), err)
	}
}

// putPod changes no more of a pod than the API allows: of its spec, nothing.
func (h Harness) putPod(ctx context.Context, pod *corev1.Pod) error {
	pods := h.Client.CoreV1().Pods(pod.Namespace)
	stored, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
	if err == nil {
		pod.Spec = stored.Spec
	}
	return put(ctx, pod, pods, pods.UpdateStatus)
}

// Delete removes the object without grace: there is no kubelet to say that a
// pod has ended, and no controller to empty a namespace.
func (h Harness) Delete(t testing.TB, object sourcetest.Object) {
	t.Helper()
	var err error
	ctx, name := t.Context(), object.GetName()
	core, now := h.Client.CoreV1(), metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}
	switch o := object.(type) {
	case *corev1.Namespace:
		if err = core.Namespaces().Delete(ctx, name, now); err == nil {
			err = h.finalize(ctx, name)
		}
	case *corev1.Node:
		err = core.Nodes().Delete(ctx, name, now)
	case *corev1.Pod:
		err = core.Pods(o.Namespace).Delete(ctx, name, now)
	case *corev1.Service:
		err = core.Services(o.Namespace).Delete(ctx, name, now)
	case *discoveryv1.EndpointSlice:
		err = h.Client.DiscoveryV1().EndpointSlices(o.Namespace).Delete(ctx, name, now)
	}
	if err != nil {
		t.Fatalf("delete %T %s/%s: %v", object, object.GetNamespace(), name, err)
	}
}

// finalize removes a namespace that waits for its contents to be deleted.
func (h Harness) finalize(ctx context.Context, name string) error {
	ns, err := h.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	ns.Spec.Finalizers = nil
	_, err = h.Client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
	return err
}

// resource is the part of a typed client that put needs.
type resource[T any] interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (T, error)
	Create(ctx context.Context, object T, opts metav1.CreateOptions) (T, error)
	Update(ctx context.Context, object T, opts metav1.UpdateOptions) (T, error)
}

func put[T metav1.Object](ctx context.Context, object T, client resource[T],
	updateStatus func(context.Context, T, metav1.UpdateOptions) (T, error),
) error {
	stored, err := client.Get(ctx, object.GetName(), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		stored, err = client.Create(ctx, object, metav1.CreateOptions{})
	case err == nil:
		object.SetResourceVersion(stored.GetResourceVersion())
		object.SetUID(stored.GetUID())
		stored, err = client.Update(ctx, object, metav1.UpdateOptions{})
	}
	if err != nil || updateStatus == nil {
		return err
	}
	object.SetResourceVersion(stored.GetResourceVersion())
	object.SetUID(stored.GetUID())
	_, err = updateStatus(ctx, object, metav1.UpdateOptions{})
	return err
}
