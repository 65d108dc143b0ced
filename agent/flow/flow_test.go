// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

var (
	client   = netip.MustParseAddrPort("10.244.1.5:41522")
	frontend = netip.MustParseAddrPort("10.96.0.10:80")
	backend  = netip.MustParseAddrPort("10.244.2.7:8080")
	addrs    = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
)

// node has the pod shop/web-1, and the Service shop/cart with a backend on node-b.
func node() *model.Node {
	tcp := corev1.ProtocolTCP
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "cart"}
	return model.Build(model.Inputs{
		NodeName: "node-a",
		Node:     &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a", Labels: map[string]string{corev1.LabelTopologyZone: "zone-a"}}},
		Pods: []*corev1.Pod{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1", UID: "1"}, Spec: corev1.PodSpec{NodeName: "node-a"},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: client.Addr().String()}}},
		}},
		Services: []*corev1.Service{{ObjectMeta: meta, Spec: corev1.ServiceSpec{
			ClusterIP: frontend.Addr().String(), ClusterIPs: []string{frontend.Addr().String()},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: tcp, AppProtocol: new("http")}},
		}}},
		EndpointSlices: []*discoveryv1.EndpointSlice{{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "cart-1", Labels: map[string]string{discoveryv1.LabelServiceName: "cart"}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: &tcp}},
			Endpoints: []discoveryv1.Endpoint{{
				Addresses: []string{backend.Addr().String()}, NodeName: new("node-b"), Zone: new("zone-b"),
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "cart-1"},
			}},
		}},
	}, model.DefaultOptions())
}

// TestNamer: addresses get the names that the node knows, what its source named stays,
// and what nobody knows stays an address.
func TestNamer(t *testing.T) {
	n := NewNamer(node())
	known := Flow{Source: Peer{Address: client}, Frontend: frontend, Backend: Peer{Address: backend}}
	n.Name(&known)
	want := Flow{
		Source:   Peer{Address: client, Namespace: "shop", Pod: "web-1", Workload: "web", Node: "node-a", Zone: "zone-a"},
		Frontend: frontend, Service: Service{"shop", "cart", "http"}, Class: "http", ClassReason: "appProtocol http",
		Backend: Peer{Address: backend, Namespace: "shop", Pod: "cart-1", Workload: "cart", Node: "node-b", Zone: "zone-b"},
	}
	if d := cmp.Diff(want, known, addrs); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	told := Flow{Source: Peer{Address: client, Namespace: "shop", Pod: "before"}, Backend: Peer{Address: backend, Namespace: "shop", Pod: "gone"}, Frontend: frontend}
	n.Name(&told)
	if told.Source.Pod != "before" || told.Backend.Pod != "gone" {
		t.Errorf("what was named is now %+v", told)
	}
	strange := Flow{Source: Peer{Address: backend}, Frontend: client}
	n.Name(&strange)
	if strange.Source.Name() != backend.String() || strange.Service.String() != "" {
		t.Errorf("strangers are named: %+v", strange)
	}
	NewNamer(nil).Name(&strange)
}

// TestLogKeepsTheLast: of more flows than the log has room for, the newest stay, in
// order, and each is found by its ID as long as it is there.
func TestLogKeepsTheLast(t *testing.T) {
	l := NewLog(3)
	if got := l.Last(5, Filter{}); len(got) != 0 {
		t.Errorf("an empty log has %v", got)
	}
	for i := range 5 {
		l.Add(Flow{Status: 200 + i})
	}
	ids := func(flows []Flow) (out []uint64) {
		for _, f := range flows {
			out = append(out, f.ID)
		}
		return out
	}
	if got := ids(l.Last(5, Filter{})); !slices.Equal(got, []uint64{3, 4, 5}) {
		t.Errorf("the log has %v, want 3 to 5", got)
	}
	if got := ids(l.Last(1, Filter{})); !slices.Equal(got, []uint64{5}) {
		t.Errorf("the last is %v, want 5", got)
	}
	for id, want := range map[uint64]int{0: 0, 2: 0, 3: 202, 5: 204, 6: 0} {
		if f, ok := l.Get(id); ok != (want != 0) || f.Status != want {
			t.Errorf("flow %d is %v, %v; want status %d", id, f.Status, ok, want)
		}
	}
	if got := l.Counts(); got.Added != 5 || got.Size != 3 {
		t.Errorf("counts are %+v", got)
	}
}

// TestFollowersNeverDelay: a follower gets what matches, loses what it does not take,
// which is counted, and never makes the log wait.
func TestFollowersNeverDelay(t *testing.T) {
	l := NewLog(1)
	f := l.Follow(Filter{Status: []string{"5xx"}})
	if l.Followers() != 1 {
		t.Errorf("%d followers, want 1", l.Followers())
	}
	for range followerBuffer + 7 {
		l.Add(Flow{Status: 503}, Flow{Status: 200})
	}
	if got := f.Lost(); got != 7 {
		t.Errorf("the follower lost %d, want 7", got)
	}
	if got := l.Counts().Lost[LossFollower]; got != 7 {
		t.Errorf("the log counts %d lost, want 7", got)
	}
	if got := <-f.Flows(); got.Status != 503 || got.ID != 1 {
		t.Errorf("the follower got %+v first", got)
	}
	<-l.Changed()
	f.Close()
	<-l.Changed()
	if l.Followers() != 0 {
		t.Errorf("%d followers are left", l.Followers())
	}
}

func sample() Flow {
	return Flow{
		ID: 7, Time: time.Unix(1000, 0).UTC(), Origin: OriginEnvoy, Frontend: frontend, Class: "http",
		Source:   Peer{Address: client, Namespace: "shop", Pod: "web-1", Workload: "web", Node: "node-a"},
		Service:  Service{"shop", "cart", "http"},
		Backend:  Peer{Address: backend, Namespace: "shop", Pod: "cart-1", Node: "node-b"},
		Protocol: "HTTP/1.1", Method: "GET", Path: "/", Status: 503, GRPCStatus: -1, Flags: []Flag{"UF", "XX"},
		Duration: Millis(1500 * time.Microsecond),
	}
}

func TestFilter(t *testing.T) {
	f := sample()
	for query, want := range map[string]bool{
		"": true, "namespace=shop": true, "namespace=other": false,
		"from=shop/web-1": true, "from=shop/web": true, "from=10.244.1.5": true, "from=shop/webs": false,
		"to=shop/cart": true, "to=shop/cart/http": true, "to=shop/cart/grpc": false, "to=10.96.0.10:80": true,
		"to=10.96.0.10": true, "to=shop/cart-1": true, "to=10.244.2.7": true, "to=10.96.0.1": false,
		"status=503": true, "status=5xx,404": true, "status=404": false, "protocol=http/1.1": true, "protocol=gRPC": false,
		"origin=envoy": true, "origin=kernel": false, "failed=true": true, "slower=1ms": true, "slower=2ms": false,
		"namespace=shop&status=200": false,
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		filter, err := ParseFilter(values)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if got := filter.Matches(&f); got != want {
			t.Errorf("%q matches: %v, want %v", query, got, want)
		}
		if again, err := ParseFilter(filter.Values()); err != nil || cmp.Diff(again, filter) != "" {
			t.Errorf("%q written and read is %+v, error %v", query, again, err)
		}
	}
	for _, query := range []string{"status=5x", "status=abc", "origin=me", "failed=maybe", "slower=1"} {
		values, _ := url.ParseQuery(query)
		if _, err := ParseFilter(values); err == nil {
			t.Errorf("%q is taken", query)
		}
	}
}

// TestJSON: a flow written and read is the same, and its flags are in words.
func TestJSON(t *testing.T) {
	f := sample()
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var again Flow
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(f, again, addrs); d != "" {
		t.Error(d)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	want := []any{map[string]any{"flag": "UF", "words": "the connection to the backend failed"}, map[string]any{"flag": "XX"}}
	if d := cmp.Diff(want, fields["flags"]); d != "" {
		t.Error(d)
	}
	if fields["durationMs"] != 1.5 {
		t.Errorf("durationMs is %v", fields["durationMs"])
	}
}

// TestFailures: every flag that is listed as a failure is one and has words, and a flow
// with it has failed.
func TestFailures(t *testing.T) {
	for _, flag := range Failures() {
		if !flag.Failure() || flag.Words() == "" {
			t.Errorf("flag %s: failure %v, words %q", flag, flag.Failure(), flag.Words())
		}
		if f := (Flow{Status: 200, GRPCStatus: -1, Flags: []Flag{flag}}); !f.Failed() {
			t.Errorf("a flow with %s has not failed", flag)
		}
	}
	for _, f := range []Flow{{Status: 200, GRPCStatus: 5}, {Status: 404, GRPCStatus: -1}, {GRPCStatus: -1, Flags: []Flag{"DC"}}} {
		if f.Failed() {
			t.Errorf("%+v has failed", f)
		}
	}
	if f := (Flow{Status: 200, GRPCStatus: 14}); !f.Failed() {
		t.Error("UNAVAILABLE has not failed")
	}
}

// TestRate: a source that sends too much is slowed down to what it may send, what it
// leaves out is estimated, and it is sped up again as it has less to send.
func TestRate(t *testing.T) {
	r := Rate{Most: 100}
	if r.Share() != 0 {
		t.Errorf("the share is %d before anybody wants any", r.Share())
	}
	r.Want(All)
	offered, lost := 10_000, uint64(0)
	for range 10 {
		sent := offered * int(r.Share()) / All
		lost += r.Saw(sent, time.Second)
	}
	if sent := offered * int(r.Share()) / All; sent > 100 || sent < 40 {
		t.Errorf("%d are sent in a second, want 50 to 100", sent)
	}
	if want := uint64(9 * 9_900); lost < want*8/10 || lost > want*12/10 {
		t.Errorf("%d are said to be lost, want about %d", lost, want)
	}
	for range 20 {
		r.Saw(0, time.Second)
	}
	if r.Share() != All {
		t.Errorf("the share is %d when nothing comes, want all", r.Share())
	}
	r.Want(0)
	if r.Share() != 0 {
		t.Errorf("the share is %d when nobody wants any", r.Share())
	}
}

func TestShare(t *testing.T) {
	for text, want := range map[string]Share{"failed": 0, "off": ShareOff, "all": All, "1%": 10_000, "0.5%": 5_000, "33.3%": 333_000} {
		var s Share
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s is %d, error %v; want %d", text, s, err, want)
		}
		if again, err := s.MarshalText(); err != nil || string(again) != text {
			t.Errorf("%s is written as %s, error %v", text, again, err)
		}
	}
	for _, text := range []string{"", "1", "0%", "-1%", "101%", "NaN%", "x%", "on"} {
		if err := new(Share).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
