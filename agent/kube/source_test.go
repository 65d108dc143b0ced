// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/kube"
	"github.com/nodevoy/nodevoy/test/kubetest"
	"github.com/nodevoy/nodevoy/test/sourcetest"
)

// run runs a source until the test ends, once it was changed.
func run(t *testing.T, cfg kube.Config, changes ...func(*kube.Source)) *kube.Source {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.NodeName = "node-1"
	source, err := kube.New(cfg, zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)))
	if err != nil {
		t.Fatal(err)
	}
	source.Hurry()
	for _, change := range changes {
		change(source)
	}
	sourcetest.Until(t, source.Run)
	return source
}

// start runs a source of all kinds over a fake server.
func start(t *testing.T) (*kubetest.Server, *kube.Source) {
	t.Helper()
	server := kubetest.NewServer(t, kinds.All()...)
	return server, run(t, kube.Config{REST: server.Config()})
}

func awaitChanged(t *testing.T, source *kube.Source) {
	t.Helper()
	select {
	case <-source.Changed():
	case <-time.After(15 * time.Second):
		t.Fatal("no signal within 15 s")
	}
}

// health is how the reading of one kind goes.
func health(t *testing.T, source *kube.Source, kind string) kinds.Health {
	t.Helper()
	all := source.Health()
	i := slices.IndexFunc(all, func(h kinds.Health) bool { return h.Kind == kind })
	if i < 0 {
		t.Fatalf("nothing is said of %s: %v", kind, all)
	}
	return all[i]
}

// problems are those of the source, each in a line.
func problems(source *kube.Source) string {
	var lines strings.Builder
	for _, p := range source.Problems() {
		lines.WriteString(p.Kind + ": " + p.Detail + "\n")
	}
	return lines.String()
}

// TestAsksForLittle is what the API server is asked to send.
func TestAsksForLittle(t *testing.T) {
	server, source := start(t)
	awaitChanged(t, source)
	got := map[string]string{}
	for _, kind := range kinds.All() {
		_, query := server.Requests("watch", kind.Resource)
		got[kind.Resource] = query.Get("labelSelector") + "|" + query.Get("fieldSelector")
	}
	want := map[string]string{
		"namespaces": "|",
		"nodes":      "|metadata.name=node-1",
		"pods":       "|spec.nodeName=node-1,status.phase!=Succeeded,status.phase!=Failed",
		"services":   "|",
		"endpointslices": "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name," +
			"kubernetes.io/service-name|",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("selectors (-want +got):\n%s", diff)
	}
}

// TestNothingBeforeEverything is an API server that refuses one of the kinds
// at first.
func TestNothingBeforeEverything(t *testing.T) {
	for _, kind := range kinds.All() {
		t.Run(kind.Resource, func(t *testing.T) {
			t.Parallel()
			server := kubetest.NewServer(t, kinds.All()...)
			server.Refuse("list", kind.Resource, http.StatusForbidden)
			server.Refuse("watch", kind.Resource, http.StatusForbidden)
			source := run(t, kube.Config{REST: server.Config()})
			eventually(t, "a failure", func() bool { return health(t, source, kind.Kind).Err != nil })
			found := source.Problems()
			if len(found) != 1 || !strings.Contains(found[0].Detail, "forbidden") || found[0].Kind != kind.Kind {
				t.Errorf("problems %v, want one that says forbidden", found)
			}
			if len(source.Changed()) > 0 {
				t.Fatal("signalled before everything was there")
			}
			server.Refuse("list", kind.Resource, 0)
			server.Refuse("watch", kind.Resource, 0)
			awaitChanged(t, source)
			if found := source.Problems(); len(found) > 0 {
				t.Errorf("problems %v after the sync", found)
			}
		})
	}
}

// TestHeartbeatsAreNoChange updates what the model does not read.
func TestHeartbeatsAreNoChange(t *testing.T) {
	server := kubetest.NewServer(t, kinds.All()...)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}
	server.Put(node)
	source := run(t, kube.Config{REST: server.Config()})
	awaitChanged(t, source)

	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady}}
	node.Annotations = map[string]string{"heartbeat": "1"}
	server.Put(node)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	server.Put(namespace)
	awaitChanged(t, source)
	if n := len(source.Inputs().Namespaces); n != 1 {
		t.Errorf("signalled with %d namespaces, want 1: the signal was for the heartbeat", n)
	}
}

// TestUnchangedObjectsKeepTheirPointer changes one Service of two, has
// everything listed again, and touches a Service without a change.
func TestUnchangedObjectsKeepTheirPointer(t *testing.T) {
	server := kubetest.NewServer(t, kinds.All()...)
	service := func(name, note string) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: map[string]string{"note": note}},
			Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.1"},
		}
	}
	server.Put(service("a", ""))
	server.Put(service("b", ""))
	source := run(t, kube.Config{REST: server.Config()})
	awaitChanged(t, source)
	get := func(name string) *corev1.Service {
		for _, s := range source.Inputs().Services {
			if s.Name == name {
				return s
			}
		}
		t.Fatalf("no Service %s", name)
		return nil
	}
	a, b := get("a"), get("b")

	server.Put(service("a", "touched"))
	changed := service("b", "")
	changed.Spec.ClusterIP = "10.96.0.2"
	server.Put(changed)
	awaitChanged(t, source)
	if get("a") != a || get("b") == b {
		t.Errorf("after a change of b: a is the same: %v, b is the same: %v", get("a") == a, get("b") == b)
	}

	b = get("b")
	lists := func() int { n, _ := server.Requests("watch", "services"); return n }
	before := lists()
	server.Refuse("watch", "services", http.StatusGone) // as after a long outage
	server.BreakWatches("services")
	eventually(t, "a refused watch", func() bool { return lists() > before })
	server.Refuse("watch", "services", 0)
	server.Put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "c"}})
	awaitChanged(t, source)
	if get("a") != a || get("b") != b {
		t.Errorf("after another list: a is the same: %v, b is the same: %v", get("a") == a, get("b") == b)
	}
}
