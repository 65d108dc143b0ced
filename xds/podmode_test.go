// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/model"
)

// podConfig is a whole configuration in pod mode.
func podConfig() Config {
	cfg := testConfig()
	cfg.PodMode = true
	cfg.Address4, cfg.Address6 = netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	return cfg
}

// testPlace is the place of a pod in namespace shop.
func testPlace(name string) model.PodTarget {
	return model.PodTarget{Namespace: "shop", Pod: name, UID: "uid-" + name, Netns: "/run/netns/cni-" + name, V4: true, V6: true}
}

func TestPodModeGolden(t *testing.T) {
	six := testPlace("six")
	six.V4 = false
	text, err := Render(podConfig(), testNode(web("10.244.1.1")), []model.PodTarget{testPlace("one"), six})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "render-pods.yaml", text)
}

// TestPodModeBootstrap: the bootstrap is the same in both modes.
func TestPodModeBootstrap(t *testing.T) {
	host, err := Bootstrap(testConfig())
	if err != nil {
		t.Fatal(err)
	}
	pods, err := Bootstrap(podConfig())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(host), string(pods)); diff != "" {
		t.Errorf("bootstrap (-host +pod):\n%s", diff)
	}
	bounded := testConfig()
	bounded.MaxHeap = 1 << 30
	text, err := Bootstrap(bounded)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"fixed_heap", `max_heap_size_bytes: "1073741824"`, "shrink_heap", "stop_accepting_connections"} {
		if !strings.Contains(string(text), want) || strings.Contains(string(host), want) {
			t.Errorf("%s: want it with a bound on the heap, and without one not", want)
		}
	}
}

func TestPodModeValidate(t *testing.T) {
	if err := podConfig().Validate(); err != nil {
		t.Fatalf("a good configuration: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"an address of the node": {func(c *Config) { c.Address4 = netip.MustParseAddr("10.0.0.1") }, "want a loopback address"},
		"transparent":            {func(c *Config) { c.Transparent = true }, "not in pod mode"},
		"no mark":                {func(c *Config) { c.UpstreamMark = 0 }, "mark of connections"},
		"no connections":         {func(c *Config) { c.MaxConnectionsPerPod = 0 }, "most connections per pod"},
		"hardly any heap":        {func(c *Config) { c.MaxHeap = 1 << 20 }, "most heap of Envoy"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := podConfig()
			c.change(&cfg)
			if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// where are the addresses a listener listens at.
func where(l *listenerv3.Listener) []string {
	var out []string
	add := func(a interface {
		GetAddress() string
		GetNetworkNamespaceFilepath() string
	},
	) {
		out = append(out, a.GetAddress()+" in "+a.GetNetworkNamespaceFilepath())
	}
	add(l.GetAddress().GetSocketAddress())
	for _, a := range l.GetAdditionalAddresses() {
		add(a.GetAddress().GetSocketAddress())
	}
	return out
}

// TestPlaces: each place has a listener of each class, of the families it has.
func TestPlaces(t *testing.T) {
	four, six, none, both := testPlace("four"), testPlace("six"), testPlace("none"), testPlace("both")
	four.V6, six.V4, none.V4, none.V6 = false, false, false, false
	got := map[string][]string{}
	for _, l := range Listeners(podConfig(), []model.PodTarget{both, four, six, none}) {
		if class, pod, _ := strings.Cut(l.GetName(), "/"); class == "http" {
			got[pod] = where(l)
		}
	}
	want := map[string][]string{
		"shop/both/uid-both": {"127.0.0.1 in /run/netns/cni-both", "::1 in /run/netns/cni-both"},
		"shop/four/uid-four": {"127.0.0.1 in /run/netns/cni-four"},
		"shop/six/uid-six":   {"::1 in /run/netns/cni-six"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("HTTP listeners (-want +got):\n%s", diff)
	}
	if n := len(Listeners(podConfig(), nil)); n != 0 {
		t.Errorf("%d listeners without a place", n)
	}
	if n := len(Listeners(testConfig(), []model.PodTarget{both})); n != 6 {
		t.Errorf("%d listeners in host mode, want 6", n)
	}
	cfg := podConfig()
	cfg.Address6 = netip.Addr{}
	if n := len(Listeners(cfg, []model.PodTarget{both, six})); n != 3 {
		t.Errorf("%d listeners without IPv6, want those of one place", n)
	}
}

// TestBadPlace: a name or path that is not UTF-8 stops nothing.
func TestBadPlace(*testing.T) {
	bad := "\xff\xfe"
	for _, l := range Listeners(podConfig(), []model.PodTarget{{Namespace: bad, Pod: bad, UID: bad, Netns: bad, V4: true}}) {
		pack(l)
	}
}

// TestListenersCarriedOver: the listeners of a place that stays are not made
// again, whatever else changes.
func TestListenersCarriedOver(t *testing.T) {
	one, two := testPlace("one"), testPlace("two")
	first := newPublished(podConfig(), testNode(), []model.PodTarget{one, two}, nil)
	before := map[string]*resource{}
	for _, name := range first.sites.names {
		before[name] = first.resource(kindListener, name)
	}
	same := newPublished(podConfig(), testNode(web("10.244.1.1")), []model.PodTarget{one, two}, first)
	if same.sites != first.sites {
		t.Error("the sites of the same places are made again")
	}
	less := newPublished(podConfig(), testNode(), []model.PodTarget{two}, same)
	if r := less.resource(kindListener, "tcp/shop/one/uid-one"); r != nil {
		t.Errorf("a place that is gone has %+v", r)
	}
	for _, name := range less.sites.names {
		if less.resource(kindListener, name) != before[name] {
			t.Errorf("%s is made again", name)
		}
	}
	two.Netns = "/run/netns/other"
	moved := newPublished(podConfig(), testNode(), []model.PodTarget{one, two}, less)
	for _, name := range moved.sites.names {
		if moved.resource(kindListener, name).version == before[name].version != strings.Contains(name, "one") {
			t.Errorf("%s: want it changed only if its place is", name)
		}
	}
}

// BenchmarkPublishPlaces: a hundred places, of which one comes and goes, or
// none.
func BenchmarkPublishPlaces(b *testing.B) {
	var places []model.PodTarget
	for i := range 100 {
		places = append(places, testPlace(fmt.Sprintf("pod-%d", i)))
	}
	for name, other := range map[string][]model.PodTarget{"same": places, "one": places[1:], "all": nil} {
		b.Run(name, func(b *testing.B) {
			s, err := NewServer(podConfig(), zap.NewNop())
			if err != nil {
				b.Fatal(err)
			}
			node := testNode(web("10.244.1.1"))
			sess, out := s.open(), make(chan cache.DeltaResponse, 16)
			watch := func() {
				sub := stream.NewDeltaSubscription(nil, nil, nil, true)
				if _, err := sess.CreateDeltaWatch(&cache.DeltaRequest{TypeUrl: kindListener.typeURL()}, &sub, out); err != nil {
					b.Fatal(err)
				}
				for len(out) > 0 {
					<-out
				}
			}
			s.Publish(node, places)
			watch()
			for i := 0; b.Loop(); i++ {
				watch()
				s.Publish(node, [][]model.PodTarget{other, places}[i%2])
			}
		})
	}
}
