// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/nodevoy/nodevoy/agent/kube/kubetest"
	"github.com/nodevoy/nodevoy/agent/sourcetest"
)

// kinds is how many watches a source has.
const kinds = 5

func TestContract(t *testing.T) {
	sourcetest.Run(t, func(*testing.T) sourcetest.Harness { return newFakeServer() })
}

// fakeServer is client-go's fake, which forgets what happens between a list
// and the watch that follows it. So it waits for the watches.
type fakeServer struct {
	kubetest.Harness
	sources int32
	watches atomic.Int32
}

func newFakeServer() *fakeServer {
	client := fake.NewClientset()
	s := &fakeServer{Harness: kubetest.Harness{Client: client}}
	client.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(action.GetResource(), action.GetNamespace())
		s.watches.Add(1)
		return true, w, err
	})
	return s
}

func (s *fakeServer) Source(t testing.TB, nodeName string) sourcetest.Source {
	s.sources++
	return s.Harness.Source(t, nodeName)
}

func (s *fakeServer) Put(t testing.TB, object sourcetest.Object) {
	s.settle(t)
	s.Harness.Put(t, object)
}

func (s *fakeServer) Delete(t testing.TB, object sourcetest.Object) {
	s.settle(t)
	s.Harness.Delete(t, object)
}

func (s *fakeServer) settle(t testing.TB) {
	t.Helper()
	eventually(t, "watches start", func() bool { return s.watches.Load() >= kinds*s.sources })
}

// eventually polls a condition that nothing signals.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}
