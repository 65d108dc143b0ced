// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/kube"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/test/kubetest"
)

// TestWatchFailsAfterTheSync takes away, from a source that has read
// everything, what it needs to follow changes, and gives it back.
func TestWatchFailsAfterTheSync(t *testing.T) {
	for _, test := range []struct {
		name        string
		breaks      func(*kubetest.Server)
		mend        func(*kubetest.Server)
		wantProblem string
	}{
		{
			"right to watch", func(s *kubetest.Server) { s.Refuse("watch", "services", http.StatusForbidden) },
			func(s *kubetest.Server) { s.Refuse("watch", "services", 0) }, "forbidden",
		},
		{
			"right to list and watch", func(s *kubetest.Server) {
				s.Refuse("watch", "services", http.StatusForbidden)
				s.Refuse("list", "services", http.StatusForbidden)
			}, func(s *kubetest.Server) {
				s.Refuse("watch", "services", 0)
				s.Refuse("list", "services", 0)
			}, "forbidden",
		},
		{
			"overload", func(s *kubetest.Server) { s.Refuse("watch", "services", http.StatusTooManyRequests) },
			func(s *kubetest.Server) { s.Refuse("watch", "services", 0) }, "too many requests",
		},
		{
			"kind that is not optional", func(s *kubetest.Server) {
				s.Refuse("watch", "services", http.StatusNotFound)
				s.Refuse("list", "services", http.StatusNotFound)
			}, func(s *kubetest.Server) {
				s.Refuse("watch", "services", 0)
				s.Refuse("list", "services", 0)
			}, "not found",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server, source := start(t)
			server.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a"}})
			awaitChanged(t, source)
			eventually(t, "the Service", func() bool { return len(source.Inputs().Services) == 1 })
			if found := problems(source); found != "" {
				t.Fatalf("problems before the fault:\n%s", found)
			}

			before := time.Now()
			test.breaks(server)
			server.BreakWatches("services")
			eventually(t, "the fault", func() bool { return health(t, source, "Service").Err != nil })
			h := health(t, source, "Service")
			if !h.Synced || h.Since.Before(before) || !strings.Contains(strings.ToLower(h.Err.Error()), test.wantProblem) {
				t.Errorf("health %+v, want synced, failing since just now, with %q", h, test.wantProblem)
			}
			const kept = "Service: can't be followed, what is known stays in force; since "
			if found := problems(source); !strings.HasPrefix(found, kept) || strings.Count(found, "\n") != 1 {
				t.Errorf("problems:\n%swant one, of the Services", found)
			}
			// It goes on failing: the beginning stays, though lists may work.
			eventually(t, "more attempts", func() bool {
				n, _ := server.Requests("watch", "services")
				return n >= 5
			})
			if again := health(t, source, "Service"); again.Err == nil || !again.Since.Equal(h.Since) {
				t.Errorf("failing since %v (%v), before since %v", again.Since, again.Err, h.Since)
			}
			if n := len(source.Inputs().Services); n != 1 {
				t.Errorf("%d Services, want the one that was known", n)
			}

			test.mend(server)
			eventually(t, "the end of the fault", func() bool { return health(t, source, "Service").Err == nil })
			server.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "b"}})
			eventually(t, "a change", func() bool { return len(source.Inputs().Services) == 2 })
			if found := problems(source); found != "" {
				t.Errorf("problems after the fault:\n%s", found)
			}
		})
	}
}

// TestStreamWithoutItsBookmark is an API server that accepts a streamed list
// and never says that it is complete.
func TestStreamWithoutItsBookmark(t *testing.T) {
	server := kubetest.NewServer(t, kinds.All()...)
	server.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a"}})
	server.WithholdBookmarks("services", true)
	source := run(t, kube.Config{REST: server.Config()})
	awaitChanged(t, source)
	if lists, _ := server.Requests("list", "services"); lists == 0 || len(source.Inputs().Services) != 1 {
		t.Errorf("%d ordinary lists, %d Services", lists, len(source.Inputs().Services))
	}
	server.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "b"}})
	eventually(t, "a change", func() bool { return len(source.Inputs().Services) == 2 })
	if found := problems(source); found != "" {
		t.Errorf("problems:\n%s", found)
	}
	// The next list is not streamed: that would cost the same wait again.
	streams, _ := server.Requests("watch", "services")
	server.Refuse("watch", "services", http.StatusGone)
	server.BreakWatches("services")
	eventually(t, "another list", func() bool { n, _ := server.Requests("list", "services"); return n > 1 })
	server.Refuse("watch", "services", 0)
	eventually(t, "another watch", func() bool { n, _ := server.Requests("watch", "services"); return n > streams+1 })
	if _, query := server.Requests("watch", "services"); query.Get("sendInitialEvents") != "" {
		t.Errorf("asked for a stream again: %v", query)
	}
}

// TestNoListAndNoError is an API server that keeps a request for a list open.
func TestNoListAndNoError(t *testing.T) {
	server := kubetest.NewServer(t, kinds.All()...)
	server.Refuse("watch", "services", http.StatusUnprocessableEntity) // no streams, as before Kubernetes 1.32
	release := server.Hold("list", "services")
	source := run(t, kube.Config{REST: server.Config()})
	eventually(t, "the fault", func() bool { return strings.Contains(problems(source), "has not sent the whole list") })
	if h := health(t, source, "Service"); h.Synced || h.Since.IsZero() {
		t.Errorf("health %+v", h)
	}
	server.Refuse("watch", "services", 0)
	release()
	awaitChanged(t, source)
	eventually(t, "the end of the fault", func() bool { return problems(source) == "" })
}

// TestRequestsHangAfterTheSync is an API server that accepts requests, once
// everything was read, and answers them neither with objects nor with an error.
func TestRequestsHangAfterTheSync(t *testing.T) {
	for _, test := range []struct {
		name    string
		hang    func(*kubetest.Server) (release func())
		wantErr string
	}{
		{
			"watch", func(s *kubetest.Server) func() { return s.Hold("watch", "services") }, "does not answer",
		},
		{
			"list", func(s *kubetest.Server) func() {
				s.Refuse("watch", "services", http.StatusUnprocessableEntity)
				release := s.Hold("list", "services")
				return func() { s.Refuse("watch", "services", 0); release() }
			}, "has not sent the whole list",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server, source := start(t)
			awaitChanged(t, source)
			before := time.Now()
			release := test.hang(server)
			server.BreakWatches("services")
			eventually(t, "the fault", func() bool { return health(t, source, "Service").Err != nil })
			h := health(t, source, "Service")
			if !h.Synced || h.Since.Before(before) || !strings.Contains(problems(source), "Service: can't be followed, what is known stays in force; since ") {
				t.Errorf("health %+v, problems:\n%s", h, problems(source))
			}
			if !strings.Contains(h.Err.Error(), test.wantErr) {
				t.Errorf("failing because %v, want %s", h.Err, test.wantErr)
			}
			release()
			server.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a"}})
			eventually(t, "a change", func() bool { return len(source.Inputs().Services) == 1 })
			eventually(t, "the end of the fault", func() bool { return health(t, source, "Service").Err == nil })
		})
	}
}

// TestQuietWatchGoesOn: nothing has to come for a watch to be a good one.
func TestQuietWatchGoesOn(t *testing.T) {
	server, source := start(t)
	awaitChanged(t, source)
	before, _ := server.Requests("watch", "services")
	quiet := time.After(2 * kube.Answer)
	for done := false; !done; {
		select {
		case <-quiet:
			done = true
		case <-time.After(kube.Answer / 10):
			if n, _ := server.Requests("watch", "services"); n != before || health(t, source, "Service").Err != nil {
				t.Fatalf("%d watches of Services, before %d; health %+v", n, before, health(t, source, "Service"))
			}
		}
	}
	server.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a"}})
	eventually(t, "a change", func() bool { return len(source.Inputs().Services) == 1 })
}

// TestWatchThatNobodyEnds is an API server that is gone behind a connection that is
// not: without an end of our own nothing would be read any more.
func TestWatchThatNobodyEnds(t *testing.T) {
	server := kubetest.NewServer(t, kinds.All()...)
	source := run(t, kube.Config{REST: server.Config()}, func(s *kube.Source) { s.EndWatchesAfter(time.Second) })
	awaitChanged(t, source)
	before, _ := server.Requests("watch", "services")
	eventually(t, "another watch", func() bool { n, _ := server.Requests("watch", "services"); return n > before+1 })
	if h := health(t, source, "Service"); h.Err != nil || problems(source) != "" {
		t.Errorf("health %+v, problems:\n%s", h, problems(source))
	}
}

// TestOptionalKind is a kind whose CustomResourceDefinition is installed,
// removed and installed again while the source runs.
func TestOptionalKind(t *testing.T) {
	var seen []*networkingv1.NetworkPolicy
	optional := kinds.Define(kinds.Kind{
		GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), Resource: "networkpolicies",
		Namespaced: true, Optional: true,
		NewList: func() runtime.Object { return &networkingv1.NetworkPolicyList{} },
	}, kinds.Definition[networkingv1.NetworkPolicy]{
		Trim: func(o *networkingv1.NetworkPolicy, _ *kinds.Interner) *networkingv1.NetworkPolicy {
			return o.DeepCopy()
		},
		Equal: func(before, after *networkingv1.NetworkPolicy) bool {
			return before.ResourceVersion == after.ResourceVersion
		},
		AddTo: func(_ *model.Inputs, objects []*networkingv1.NetworkPolicy) { seen = objects },
	})
	server := kubetest.NewServer(t, kinds.All()...)
	source := run(t, kube.Config{REST: server.Config(), Kinds: append(kinds.All(), optional)})
	awaitChanged(t, source) // without the kind
	if h := health(t, source, "NetworkPolicy"); !h.Absent || h.Err != nil {
		t.Errorf("health %+v, want absent and no failure", h)
	}
	if found := problems(source); found != "" {
		t.Errorf("problems:\n%s", found)
	}
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}}
	has := func(count int) func() bool {
		return func() bool { source.Inputs(); return len(seen) == count }
	}
	for _, round := range []string{"installed", "installed again"} {
		server.Serve(optional)
		server.Put(policy)
		awaitChanged(t, source)
		eventually(t, round, has(1))
		if h := health(t, source, "NetworkPolicy"); h.Absent || h.Err != nil || !h.Synced {
			t.Errorf("%s: health %+v", round, h)
		}
		server.Unserve(optional)
		eventually(t, "removed", has(0))
		eventually(t, "absent", func() bool { return health(t, source, "NetworkPolicy").Absent })
	}
	// Refused is not absent: it may be there.
	server.Refuse("list", "networkpolicies", http.StatusForbidden)
	server.Refuse("watch", "networkpolicies", http.StatusForbidden)
	eventually(t, "refused", func() bool {
		h := health(t, source, "NetworkPolicy")
		return !h.Absent && h.Err != nil
	})
}
