// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/kube"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/test/kubetest"
)

// clock is one that tests set.
type clock struct{ ahead atomic.Int64 }

func start2026() time.Time { return time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC) }

func (c *clock) now() time.Time { return start2026().Add(time.Duration(c.ahead.Load())) }

func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

func taken() model.Problem {
	return model.Problem{
		Kind: "Service", Namespace: "shop", Name: "web", Field: "spec.clusterIP",
		Detail: "10.96.0.1:80 already belongs to shop/other",
	}
}

func TestEvent(t *testing.T) {
	server := kubetest.NewServer(t, kinds.All()...)
	server.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-web"}})
	var c clock
	source := run(t, kube.Config{REST: server.Config(), Now: c.now})
	awaitChanged(t, source)
	label := model.Problem{Kind: "Namespace", Name: "shop", Field: "f", Detail: strings.Repeat("x", 1020) + "é"}
	for range 3 { // the agent finds the same problems every round
		source.Warn([]model.Problem{taken(), label})
	}
	eventually(t, "two events", func() bool { return len(server.Events()) == 2 })
	got := server.Events()
	want := eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: "shop", Name: got["web"].Name},
		EventTime:           metav1.NewMicroTime(start2026()),
		ReportingController: "nodevoy.io/agent", ReportingInstance: "node-1", Action: "Redirect", Type: "Warning",
		Reason: "NotUsedAsWritten", Note: "spec.clusterIP: 10.96.0.1:80 already belongs to shop/other",
		Regarding: corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: "shop", Name: "web", UID: "uid-web"},
	}
	ignore := cmpopts.IgnoreFields(eventsv1.Event{}, "TypeMeta")
	if diff := cmp.Diff(want, got["web"], ignore); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if e := got["shop"]; e.Namespace != "default" || e.Note != "f: "+strings.Repeat("x", 1020) {
		t.Errorf("event in %s with a note of %d bytes, want one in default, cut at a character to the API's limit of 1024", e.Namespace, len(e.Note))
	}
	if creates, _ := server.Requests("create", "events"); creates != 2 {
		t.Errorf("%d requests, want one for each event", creates)
	}
}

// TestEventsLastAsLongAsTheirFault lets a day pass with two agents that see the
// same fault, and an API server that deletes Events after an hour.
func TestEventsLastAsLongAsTheirFault(t *testing.T) {
	server := kubetest.NewServer(t, kinds.All()...)
	var c clock
	first := run(t, kube.Config{REST: server.Config(), Now: c.now})
	awaitChanged(t, first)
	first.Warn([]model.Problem{taken()})
	eventually(t, "the event", func() bool { return len(server.Events()) == 1 })
	second := run(t, kube.Config{REST: server.Config(), Now: c.now})
	awaitChanged(t, second)
	second.Warn([]model.Problem{taken()})
	requests := func() int {
		creates, _ := server.Requests("create", "events")
		patches, _ := server.Requests("patch", "events")
		return creates + patches
	}
	eventually(t, "both agents' requests", func() bool { return requests() == 2 })

	for count := int32(2); count <= 4; count++ {
		c.advance(kube.RenewInterval)
		eventually(t, "the renewal", func() bool {
			s := server.Events()["web"].Series
			return s != nil && s.Count == count
		})
		if at := server.Events()["web"].Series.LastObservedTime; !at.Time.Equal(c.now()) {
			t.Errorf("last observed at %v, want %v", at, c.now())
		}
		if events := server.Events(); len(events) != 1 {
			t.Fatalf("%d events of one fault", len(events))
		}
		eventually(t, "the other agent's request", func() bool { return requests() == 2*int(count) })
	}

	server.ExpireEvents()
	c.advance(kube.RenewInterval)
	eventually(t, "the event, made again", func() bool { return len(server.Events()) == 1 })

	eventually(t, "both agents' requests", func() bool { return requests() >= 10 })
	// From here on each agent sees another fault. Once that was told twice, anything
	// that was due with it has been told, too.
	other := func(name string) []model.Problem {
		return []model.Problem{{Kind: "Service", Namespace: "shop", Name: name, Field: "f", Detail: "d"}}
	}
	first.Warn(other("a"))
	second.Warn(other("b"))
	told := func(name string) bool { _, ok := server.Events()[name]; return ok }
	eventually(t, "the other events", func() bool { return told("a") && told("b") })
	server.ExpireEvents()
	c.advance(kube.RenewInterval)
	eventually(t, "the other events, made again", func() bool { return told("a") && told("b") })
	c.advance(kube.RenewInterval)
	eventually(t, "their renewal", func() bool {
		events := server.Events()
		return events["a"].Series != nil && events["b"].Series != nil
	})
	if events := server.Events(); len(events) != 2 {
		t.Errorf("events %v: a fault that is gone is still told", events)
	}
}

func TestEventsNeverMatter(t *testing.T) {
	source, err := kube.New(kube.Config{NodeName: "n", REST: &rest.Config{Host: "192.0.2.1"}, Now: time.Now}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	for range 10_000 { // nobody writes them: must not block
		source.Warn([]model.Problem{taken()})
	}

	server := kubetest.NewServer(t, kinds.All()...)
	server.Refuse("create", "events", http.StatusForbidden)
	running := run(t, kube.Config{REST: server.Config()})
	awaitChanged(t, running)
	running.Warn([]model.Problem{taken()})
	eventually(t, "the attempt", func() bool { n, _ := server.Requests("create", "events"); return n > 0 })
	if found := problems(running); found != "" {
		t.Errorf("problems:\n%s", found)
	}
}

// TestEventIsTriedAgain is an API server that fails for a moment.
func TestEventIsTriedAgain(t *testing.T) {
	server, source := start(t)
	awaitChanged(t, source)
	server.Refuse("create", "events", http.StatusInternalServerError)
	source.Warn([]model.Problem{taken()})
	eventually(t, "two attempts", func() bool { n, _ := server.Requests("create", "events"); return n >= 2 })
	server.Refuse("create", "events", 0)
	eventually(t, "the event", func() bool { return len(server.Events()) == 1 })
}
