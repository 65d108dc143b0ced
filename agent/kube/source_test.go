// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/nodevoy/nodevoy/agent/kube"
	"github.com/nodevoy/nodevoy/agent/model"
)

// run runs a source over the client until the test ends.
func run(t *testing.T, cfg kube.Config) *kube.Source {
	t.Helper()
	cfg.NodeName = "node-1"
	source, err := kube.New(cfg, zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("source ended with an error: %v", err)
		}
	})
	return source
}

func awaitChanged(t *testing.T, source *kube.Source) {
	t.Helper()
	select {
	case <-source.Changed():
	case <-time.After(15 * time.Second):
		t.Fatal("no signal within 15 s")
	}
}

// TestAsksForLittle is what the API server is asked to send.
func TestAsksForLittle(t *testing.T) {
	client := fake.NewClientset()
	source := run(t, kube.Config{Client: client})
	awaitChanged(t, source)
	got := map[string]string{}
	for _, action := range client.Actions() {
		if list, ok := action.(clienttesting.ListAction); ok {
			r := list.GetListRestrictions()
			got[action.GetResource().Resource] = r.Labels.String() + "|" + r.Fields.String()
		}
	}
	want := map[string]string{
		"namespaces": "|",
		"nodes":      "|metadata.name=node-1",
		"pods":       "|spec.nodeName=node-1,status.phase!=Failed,status.phase!=Succeeded",
		"services":   "|",
		"endpointslices": "kubernetes.io/service-name,!service.kubernetes.io/headless," +
			"!service.kubernetes.io/service-proxy-name|",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("selectors (-want +got):\n%s", diff)
	}
}

// TestNothingBeforeEverything is an API server that refuses one of the kinds
// at first.
func TestNothingBeforeEverything(t *testing.T) {
	for _, resource := range []string{"namespaces", "nodes", "pods", "services", "endpointslices"} {
		t.Run(resource, func(t *testing.T) {
			t.Parallel()
			client := fake.NewClientset()
			var allowed atomic.Bool
			client.PrependReactor("list", resource, func(clienttesting.Action) (bool, runtime.Object, error) {
				if allowed.Load() {
					return false, nil, nil
				}
				return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("not yet"))
			})
			source := run(t, kube.Config{Client: client})
			failures := func() (total uint64) {
				for _, n := range source.WatchFailures() {
					total += n
				}
				return total
			}
			eventually(t, "a failure", func() bool { return failures() > 0 })
			problems := source.Problems()
			if len(problems) != 1 || !strings.Contains(problems[0].Detail, "forbidden") || problems[0].Kind == "" {
				t.Errorf("problems %v, want one that says forbidden", problems)
			}
			if len(source.Changed()) > 0 {
				t.Fatal("signalled before everything was there")
			}
			allowed.Store(true)
			awaitChanged(t, source)
			if problems := source.Problems(); len(problems) > 0 {
				t.Errorf("problems %v after the sync", problems)
			}
		})
	}
}

// TestHeartbeatsAreNoChange updates what the model does not read.
func TestHeartbeatsAreNoChange(t *testing.T) {
	server := newFakeServer()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}
	server.Put(t, node)
	server.sources++
	source := run(t, kube.Config{Client: server.Client})
	awaitChanged(t, source)
	server.settle(t)

	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady}}
	node.Annotations = map[string]string{"heartbeat": "1"}
	server.Put(t, node)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	server.Put(t, namespace)
	awaitChanged(t, source)
	if n := len(source.Inputs().Namespaces); n != 1 {
		t.Errorf("signalled with %d namespaces, want 1: the signal was for the heartbeat", n)
	}
}

func TestEvent(t *testing.T) {
	client := fake.NewClientset(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-web"}})
	now := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	var ticks atomic.Int64
	source := run(t, kube.Config{Client: client, Now: func() time.Time {
		return now.Add(time.Duration(ticks.Add(1)) * time.Second)
	}})
	awaitChanged(t, source)
	web := kube.Object{Kind: "Service", Namespace: "shop", Name: "web"}
	for range 3 { // the agent finds the same problem every round
		source.Event(web, "AddressTaken", "10.96.0.1:80 already belongs to shop/other")
	}
	source.Event(kube.Object{Kind: "Namespace", Name: "shop"}, "InvalidLabel", strings.Repeat("x", 5000))

	var got []eventsv1.Event
	eventually(t, "two events", func() bool {
		got = nil
		for _, namespace := range []string{"shop", "default"} {
			list, err := client.EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, list.Items...)
		}
		return len(got) >= 2
	})
	if len(got) != 2 {
		t.Fatalf("got %d events, want 2: %v", len(got), got)
	}
	want := eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: "shop", Name: got[0].Name},
		EventTime:           metav1.NewMicroTime(now.Add(time.Second)),
		ReportingController: "nodevoy.io/agent", ReportingInstance: "node-1", Action: "Redirect", Type: "Warning",
		Reason: "AddressTaken", Note: "10.96.0.1:80 already belongs to shop/other",
		Regarding: corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: "shop", Name: "web", UID: "uid-web"},
	}
	// The fake server's own additions.
	ignore := cmp.Options{
		cmpopts.IgnoreFields(eventsv1.Event{}, "TypeMeta"), cmpopts.IgnoreFields(metav1.ObjectMeta{}, "ManagedFields"),
	}
	if diff := cmp.Diff(want, got[0], ignore); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if len(got[1].Note) != 1024 {
		t.Errorf("note of %d bytes, want the API's limit of 1024", len(got[1].Note))
	}
}

func TestEventNeverMatters(t *testing.T) {
	about := kube.Object{Kind: "Pod", Namespace: "shop", Name: "p"}
	var none *kube.Source
	none.Event(about, "Reason", "note")

	source, err := kube.New(kube.Config{NodeName: "n", Client: fake.NewClientset()}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	source.Event(about, "Reason", "no clock, no events")

	source, err = kube.New(kube.Config{NodeName: "n", Client: fake.NewClientset(), Now: time.Now}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	for range 10_000 { // nobody writes them: must not block
		source.Event(about, "Reason", "note")
	}

	forbidden := fake.NewClientset()
	forbidden.PrependReactor("create", "events", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "events"}, "", nil)
	})
	running := run(t, kube.Config{Client: forbidden, Now: time.Now})
	awaitChanged(t, running)
	running.Event(about, "Reason", "note")
	eventually(t, "the attempt", func() bool {
		for _, action := range forbidden.Actions() {
			if action.GetVerb() == "create" {
				return true
			}
		}
		return false
	})
	if diff := cmp.Diff([]model.Problem(nil), running.Problems()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}
