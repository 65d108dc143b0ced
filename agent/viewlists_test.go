// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/server"
)

// largeState is that of a cluster with so many Services in ten namespaces, of two ports
// and two addresses each, of which every hundredth is in use; all of one port of a Service
// share its backends.
func largeState(services, backends int) *State {
	node := &model.Node{Name: "node-a"}
	used := []netip.AddrPort{}
	for i := range services {
		var shared []model.Backend
		for b := range backends {
			shared = append(shared, model.Backend{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(100 + b>>16), byte(b >> 8), byte(b)}), 8080), Namespace: "ns", Pod: fmt.Sprintf("pod-%d", b), Node: "node-b", Zone: "zone-a",
			})
		}
		for port := range uint16(2) {
			for _, net := range []byte{96, 97} {
				at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, net, byte(i >> 8), byte(i)}), 80+port)
				node.Frontends = append(node.Frontends, &model.Frontend{
					Address: at, Class: model.ClassHTTP, ClassReason: "port name http", Backends: shared,
					Port: model.ServicePort{Namespace: fmt.Sprintf("ns-%d", i%10), Service: fmt.Sprintf("svc-%d", i), PortName: fmt.Sprintf("http-%d", port), Port: 80 + port},
				})
				if i%100 == 0 {
					used = append(used, at)
				}
			}
		}
		node.Problems = append(node.Problems, model.Problem{Kind: "Service", Namespace: "ns", Name: fmt.Sprintf("svc-%d", i), Detail: "can't be used"})
		node.Pods = append(node.Pods, model.Pod{Namespace: fmt.Sprintf("ns-%d", i%10), Name: fmt.Sprintf("pod-%d", i), UID: fmt.Sprint(i), Reason: "namespace is not labelled"})
	}
	slices.SortFunc(node.Frontends, func(a, b *model.Frontend) int { return a.Address.Compare(b.Address) })
	slices.SortFunc(node.Pods, func(a, b model.Pod) int {
		return strings.Compare(a.Namespace+"\x00"+a.Name, b.Namespace+"\x00"+b.Name)
	})
	return &State{At: time.Unix(1, 0), Phase: PhaseRedirecting, Node: node, InUse: func() []netip.AddrPort { return used }}
}

// all is a whole list, read in parts, and the size of the largest one in bytes.
func all[T any](t *testing.T, q view.Query, part func(view.Query) view.List[T]) (items []T, largest int) {
	t.Helper()
	for parts := 0; ; parts++ {
		l := part(q)
		text, err := json.Marshal(l)
		if err != nil || len(l.Items) > q.Limit || parts > 1000 {
			t.Fatalf("part %d has %d items, %v", parts, len(l.Items), err)
		}
		items, largest = append(items, l.Items...), max(largest, len(text))
		if l.Continue == "" {
			return items, largest
		}
		q.After = l.Continue
	}
}

// distinct wants so many items, in order of their keys, each once.
func distinct[T any](t *testing.T, what string, items []T, want int, key func(T) string) {
	t.Helper()
	keys := make([]string, 0, len(items))
	for _, item := range items {
		keys = append(keys, key(item))
	}
	if sorted := slices.IsSorted(keys); !sorted || len(slices.Compact(keys)) != want || len(items) != want {
		t.Errorf("%s: %d, want %d; sorted %v", what, len(items), want, sorted)
	}
}

// TestListsOfALargeCluster come in parts of limited size, which together are the whole
// list; the summary does not grow with it.
func TestListsOfALargeCluster(t *testing.T) {
	s := largeState(10_000, 3)
	const kB = 1 << 10
	frontends := func(q view.Query) view.List[view.Frontend] {
		l, err := s.viewFrontends(q)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	service := func(x view.Service) string { return x.Namespace + "\x00" + x.Name }
	pod := func(x view.Pod) string { return x.Namespace + "\x00" + x.Name }
	address := func(x view.Frontend) string {
		at := netip.MustParseAddrPort(x.Address)
		return string(at.Addr().AsSlice()) + fmt.Sprint(at.Port())
	}
	services, size := all(t, view.Query{Limit: 999}, s.viewServices)
	distinct(t, "services", services, 10_000, service)
	if size > 600*kB {
		t.Errorf("a part of the Services has %d kB", size/kB)
	}
	if one := services[0]; len(one.Ports) != 2 || len(one.Ports[0].Addresses) != 2 || one.Ports[0].Backends != 3 || !one.InUse {
		t.Errorf("a Service is %+v", one)
	}
	services, _ = all(t, view.Query{Limit: 30, InUse: true}, s.viewServices)
	distinct(t, "services in use", services, 100, service)
	services, _ = all(t, view.Query{Limit: 1000, Namespace: "ns-3"}, s.viewServices)
	distinct(t, "services of a namespace", services, 1000, service)
	list, size := all(t, view.Query{Limit: 1000}, frontends)
	distinct(t, "frontends", list, 40_000, address)
	if size > 700*kB {
		t.Errorf("a part of the frontends has %d kB", size/kB)
	}
	for what, tt := range map[string]struct {
		q    view.Query
		want int
	}{
		"in use": {view.Query{InUse: true}, 400}, "of a namespace": {view.Query{Namespace: "ns-3"}, 4000}, "of a Service": {view.Query{Service: "ns-7/svc-17"}, 4},
		"of a class": {view.Query{Class: "http"}, 40_000}, "bypassed": {view.Query{Class: "bypass"}, 0},
	} {
		tt.q.Limit = 1000
		list, _ := all(t, tt.q, frontends)
		distinct(t, "frontends "+what, list, tt.want, address)
	}
	pods, _ := all(t, view.Query{Limit: 999}, s.viewPods)
	distinct(t, "pods", pods, 10_000, pod)
	pods, _ = all(t, view.Query{Limit: 90, Namespace: "ns-3"}, s.viewPods)
	distinct(t, "pods of a namespace", pods, 1000, pod)
	summary := s.summary()
	text, err := json.Marshal(summary)
	if err != nil || len(text) > 16*kB || summary.ProblemCount != 10_000 || summary.FrontendCount["http"] != 40_000 {
		t.Errorf("the summary has %d kB, %d problems, frontends %v; %v", len(text)/kB, summary.ProblemCount, summary.FrontendCount, err)
	}
}

// TestManyBackends: a part ends before it has too many, but for a frontend that alone has
// more.
func TestManyBackends(t *testing.T) {
	for backends, want := range map[int][]int{4000: {2, 2}, 6000: {1, 1, 1, 1}, 20_000: {1, 1, 1, 1}, 1000: {4}} {
		s, q := largeState(1, backends), view.Query{Limit: 100}
		var got []int
		for {
			l, err := s.viewFrontends(q)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, len(l.Items))
			if q.After = l.Continue; q.After == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d backends each: parts of %v frontends, want %v", backends, got, want)
		}
		one, ok := s.viewServiceDetail("ns-0", "svc-0")
		if !ok || len(one.Frontends) != want[0] || (one.Continue != "") != (len(want) > 1) {
			t.Errorf("%d backends each: the Service has %d frontends and goes on with %q", backends, len(one.Frontends), one.Continue)
		}
	}
}

// TestListsBeforeTheFirstRound are empty, and lists.
func TestListsBeforeTheFirstRound(t *testing.T) {
	for _, s := range []*State{nil, {}} {
		frontends, err := s.viewFrontends(view.Query{Limit: 1})
		_, found := s.viewServiceDetail("a", "b")
		if err != nil || found {
			t.Errorf("frontends: %v; a Service is found: %v", err, found)
		}
		for _, v := range []any{frontends, s.viewPods(view.Query{}), s.viewServices(view.Query{}), s.viewPlan(), s.viewXDS(nil, view.Query{}), s.summary()} {
			if text, err := json.Marshal(v); err != nil || strings.Contains(string(text), "null") {
				t.Errorf("%s, %v", text, err)
			}
		}
	}
	if _, err := largeState(1, 1).viewFrontends(view.Query{After: "x"}); !errors.Is(err, debug.ErrInvalid) {
		t.Errorf("a wrong place to go on: %v", err)
	}
}

// TestViewXDS: resources with what became of them, in parts and by filter.
func TestViewXDS(t *testing.T) {
	at := time.Unix(1000, 0).UTC()
	streams := []server.Stream{{Since: at, Version: server.Version{1, 40, 0}, Pending: 1, Resources: []server.StreamResource{
		{Kind: xds.KindCluster, Name: "c", Sent: "1", Accepted: "1", Answered: true},
		{Kind: xds.KindCluster, Name: "b", Sent: "2", Accepted: "1", Answered: true, Refused: "no good", RefusedAt: at},
		{Kind: xds.KindCluster, Name: "a", Requested: true},
		{Kind: xds.KindCluster, Name: "d", Answered: true},
		{Kind: xds.KindListener, Name: "l", Sent: "3", Accepted: "2"},
	}}, {Since: at, Resources: []server.StreamResource{{Kind: xds.KindCluster, Name: "c", Sent: "1"}}}}
	part := func(q view.Query) view.List[view.Resource] { return (&State{}).viewXDS(streams, q).List }
	told := func(q view.Query) string {
		q.Limit = 2
		items, _ := all(t, q, part)
		var text []string
		for _, r := range items {
			text = append(text, strings.TrimSpace(fmt.Sprint(r.Stream, r.Kind, " ", r.Name, " ", r.State, " ", r.Version, " ", r.Accepted, " ", r.Why)))
		}
		return strings.Join(text, "\n")
	}
	const want = `0cluster a requested
0cluster b refused 2 1 no good
0cluster c accepted 1
0cluster d absent
0listener l sent 3 2
1cluster c sent 1`
	if got := told(view.Query{}); strings.ReplaceAll(got, "  ", " ") != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := told(view.Query{Refused: true}); got != "0cluster b refused 2 1 no good" {
		t.Errorf("refused are %s", got)
	}
	if got := told(view.Query{Kind: "listener"}); !strings.HasPrefix(got, "0listener l") {
		t.Errorf("listeners are %s", got)
	}
	counts := (&State{}).viewXDS(streams, view.Query{Limit: 1}).Streams
	if want := (view.ResourceCount{Subscribed: 4, Accepted: 1, Refused: 1}); counts[0].Kinds["cluster"] != want || counts[0].Version != "1.40.0" || len(counts) != 2 {
		t.Errorf("streams are %+v", counts)
	}
}

// BenchmarkLists: the first part of each list, of 10,000 Services.
func BenchmarkLists(b *testing.B) {
	s, q := largeState(10_000, 3), view.Query{Limit: 500}
	b.Run("summary", func(b *testing.B) {
		for b.Loop() {
			s.summary()
		}
	})
	b.Run("services", func(b *testing.B) {
		for b.Loop() {
			s.viewServices(q)
		}
	})
	b.Run("frontends", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.viewFrontends(q); err != nil {
				b.Fatal(err)
			}
		}
	})
}
