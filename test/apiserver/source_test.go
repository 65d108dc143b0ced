// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nodevoy/nodevoy/agent/kube"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/test/sourcetest"
)

// connections are those of a client, which can be cut.
type connections struct {
	mu   sync.Mutex
	open []net.Conn
}

func (c *connections) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.open = append(c.open, conn)
	}
	return conn, err
}

func (c *connections) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		_ = conn.Close()
	}
	c.open = nil
}

// runSource runs a source with the rights that the chart gives, until the test
// ends, and waits until it has read everything. Its clock is ahead by as much.
func runSource(t *testing.T, server *Server, conns *connections, ahead *atomic.Int64) *kube.Source {
	t.Helper()
	rules := append(reads(), rbacv1.PolicyRule{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}})
	cfg := must(clientcmd.BuildConfigFromFlags("", server.Kubeconfig(t, rules...)))(t)
	cfg.Dial = conns.dial
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	source := must(kube.New(kube.Config{NodeName: "node-a", REST: cfg, Now: now}, zaptest.NewLogger(t)))(t)
	sourcetest.Until(t, source.Run)
	select {
	case <-source.Changed():
	case <-time.After(time.Minute):
		t.Fatalf("not everything is read after a minute: %v", source.Problems())
	}
	return source
}

// knownService makes the Service web, waits until the source knows it, and returns
// whether it does.
func knownService(t *testing.T, server *Server, source *kube.Source) (knows func() bool) {
	t.Helper()
	web := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}
	must(server.Client(t).CoreV1().Services(metav1.NamespaceDefault).Create(t.Context(), web, metav1.CreateOptions{}))(t)
	knows = func() bool {
		return slices.ContainsFunc(source.Inputs().Services, func(s *corev1.Service) bool { return s.Name == "web" })
	}
	until(t, 10*time.Second, "the Service", func(context.Context) error {
		if !knows() {
			return errors.New("not known")
		}
		return nil
	})
	return knows
}

// TestRightsAreTakenAway takes the right to read Services from a source that
// has read everything: that is told within a minute, also as the source goes on
// with what it knows, and ends when the right is given back.
func TestRightsAreTakenAway(t *testing.T) {
	_, server := newLab(t)
	var conns connections
	var ahead atomic.Int64
	source := runSource(t, server, &conns, &ahead)
	if found := source.Problems(); len(found) > 0 {
		t.Fatalf("problems before: %v", found)
	}
	knows := knownService(t, server, source)
	roles := server.Client(t).RbacV1().ClusterRoles()
	set := func(rules []rbacv1.PolicyRule) {
		role := must(roles.Get(t.Context(), "agent", metav1.GetOptions{}))(t)
		role.Rules = rules
		must(roles.Update(t.Context(), role, metav1.UpdateOptions{}))(t)
	}
	all := reads()
	fewer := reads()
	fewer[0].Resources = []string{"namespaces", "nodes", "pods"}
	set(fewer)
	told := func(context.Context) error {
		for _, p := range source.Problems() {
			if p.Kind == "Service" && strings.Contains(p.Detail, "stays in force") && strings.Contains(p.Detail, "forbidden") {
				return nil
			}
		}
		return errors.New("nothing is said of Services")
	}
	// The watches that are open are not ended by that: they end after minutes. One
	// that is opened again before the server knows of the change stays open, too.
	var cut time.Time
	took := until(t, time.Minute, "the problem", func(ctx context.Context) error {
		if time.Since(cut) > 10*time.Second {
			cut = time.Now()
			conns.cut()
		}
		return told(ctx)
	})
	t.Logf("told after %v", took.Round(time.Millisecond))
	if !knows() {
		t.Error("the Service is forgotten")
	}
	set(all)
	until(t, 2*time.Minute, "the end of the problem", func(context.Context) error {
		if found := source.Problems(); len(found) > 0 {
			return errors.New(found[0].Detail)
		}
		return nil
	})
}

// TestEventSeries has a real API server accept an Event and its renewal.
func TestEventSeries(t *testing.T) {
	_, server := newLab(t)
	var conns connections
	var ahead atomic.Int64
	source := runSource(t, server, &conns, &ahead)
	knownService(t, server, source)
	source.Warn([]model.Problem{{Kind: "Service", Namespace: "default", Name: "web", Field: "spec", Detail: "a note"}})
	events := server.Client(t).EventsV1().Events(metav1.NamespaceDefault)
	var found eventsv1.Event
	find := func(ctx context.Context, want func() bool) error {
		list, err := events.List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, found = range list.Items {
			if found.Reason == "NotUsedAsWritten" && want() {
				return nil
			}
		}
		return errors.New("no such event")
	}
	until(t, 10*time.Second, "the event", func(ctx context.Context) error { return find(ctx, func() bool { return true }) })
	if found.Type != corev1.EventTypeWarning || found.Regarding.UID == "" {
		t.Errorf("event %+v", found)
	}
	ahead.Add(int64(31 * time.Minute))
	// The source looks for what is due once a minute.
	until(t, 90*time.Second, "the renewal", func(ctx context.Context) error {
		return find(ctx, func() bool { return found.Series != nil && found.Series.Count == 2 })
	})
}
