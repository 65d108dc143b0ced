// SPDX-License-Identifier: Apache-2.0

// Package sourcetest is the contract of the agent's sources of inputs, as
// tests that run on any of them: a directory of objects, a fake API server, a
// real one. It says what the agent's loop relies on: nothing before the whole
// is there, then a signal after every change, and every field the model reads.
//
// An API server under test must hand out ClusterIPs from a range that holds
// 10.96.0.0/16.
package sourcetest

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nodevoy/nodevoy/agent/model"
)

// patience is how long a change may take to arrive before the test fails.
const patience = 15 * time.Second

// stopTime is how long what runs may take to end with its test.
const stopTime = 10 * time.Second

// Object is a Kubernetes object of a kind the model reads.
type Object interface {
	runtime.Object
	metav1.Object
}

// Source is what the contract is about.
type Source interface {
	Run(ctx context.Context) error
	Changed() <-chan struct{}
	Inputs() model.Inputs
}

// Harness is a place to put objects and the source that reads it.
type Harness interface {
	// Put creates the object, or replaces the one of that name, its status
	// included. It does not keep or change what it is given.
	Put(t testing.TB, object Object)
	// Delete removes the object of that kind and name at once.
	Delete(t testing.TB, object Object)
	// Source makes a source for the node. The test runs it.
	Source(t testing.TB, nodeName string) Source
}

// Until calls run in the background until the test ends, and wants it to return
// then, without an error. What it returned can be received; who does so before the
// test ends sends it back.
func Until(t testing.TB, run func(ctx context.Context) error) (ended chan error) {
	t.Helper()
	ended = make(chan error, 1)
	go func() { ended <- run(t.Context()) }() // Ends before what is cleaned up.
	t.Cleanup(func() {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("ended with an error: %v", err)
			}
		case <-time.After(stopTime):
			t.Errorf("still running %v after the end of the test", stopTime)
		}
	})
	return ended
}

// Run tests that sources keep the contract. It asks for a harness for each
// part; they may share one API server, since each uses names of its own.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	for _, part := range []struct {
		name string
		test func(t *testing.T, h Harness)
	}{
		{"first signal has the whole", firstSignalHasTheWhole},
		{"every change is signalled", everyChangeIsSignalled},
		{"changes coalesce", changesCoalesce},
		{"service is made again", serviceIsMadeAgain},
		{"pod IP moves on", podIPMovesOn},
		{"run ends with its context", runEndsWithItsContext},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, newHarness(t)) })
	}
}

// watched is a running source, and one namespace in it.
type watched struct {
	Source
	namespace string
}

// start runs the source until the test ends and waits for its first signal.
func start(t *testing.T, h Harness, namespace string) watched {
	t.Helper()
	source := h.Source(t, nodeName)
	ended := Until(t, source.Run)
	select {
	case <-source.Changed():
	case err := <-ended:
		ended <- err
		t.Fatalf("source ended before its first signal: %v", err)
	case <-time.After(patience):
		t.Fatalf("no signal after %v", patience)
	}
	return watched{Source: source, namespace: namespace}
}

// view is what the model makes of one namespace.
type view struct {
	Pods      []model.Pod
	Frontends []model.Frontend
}

func viewOf(inputs model.Inputs, namespace string) view {
	node := model.Build(inputs, model.DefaultOptions())
	var v view
	for _, pod := range node.Pods {
		if pod.Namespace == namespace {
			v.Pods = append(v.Pods, pod)
		}
	}
	for _, frontend := range node.Frontends {
		if frontend.Port.Namespace == namespace {
			v.Frontends = append(v.Frontends, *frontend)
		}
	}
	return v
}

// diff compares views. API servers choose UIDs themselves.
func diff(want, got view) string {
	return cmp.Diff(want, got, cmpopts.IgnoreFields(model.Pod{}, "UID"), cmpopts.EquateEmpty(),
		cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}))
}

// await waits, woken by nothing but the source's own signal, until the view of
// its inputs is that of these objects.
func (w watched) await(t *testing.T, why string, want ...Object) {
	t.Helper()
	wanted := viewOf(inputsOf(want), w.namespace)
	deadline := time.After(patience)
	for {
		d := diff(wanted, viewOf(w.Inputs(), w.namespace))
		if d == "" {
			return
		}
		select {
		case <-w.Changed():
		case <-deadline:
			t.Fatalf("%s: not seen, or not signalled, within %v (-want +got):\n%s", why, patience, d)
		}
	}
}
