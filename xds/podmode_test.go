// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net/netip"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

// podConfig is a whole configuration in pod mode.
func podConfig() Config {
	cfg := testConfig()
	cfg.PodMode, cfg.MaxConnectionsPerPod = true, 256
	cfg.Address4, cfg.Address6 = netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	return cfg
}

func TestPodModeGolden(t *testing.T) {
	six := xdstest.Target("six")
	six.V4 = false
	text, err := Render(podConfig(), xdstest.Node(xdstest.Web("10.244.1.1")), []model.PodTarget{xdstest.Target("one"), six})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "render-pods.yaml", text)
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
		"hardly any heap":        {func(c *Config) { c.MaxHeap = 1 << 20 }, "heap bound of Envoy"},
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

// TestNoConnectionLimit: without a limit, no listener has the filter.
func TestNoConnectionLimit(t *testing.T) {
	cfg := podConfig()
	cfg.MaxConnectionsPerPod = 0
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	for _, l := range listeners(cfg, xdstest.Target("one")) {
		for _, chain := range l.GetFilterChains() {
			for _, f := range chain.GetFilters() {
				if f.GetName() == "limit" {
					t.Errorf("%s, chain %s, has a limit", l.GetName(), chain.GetName())
				}
			}
		}
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

// listeners are all listeners.
func listeners(cfg Config, targets ...model.PodTarget) []*listenerv3.Listener {
	specs := newListenerSpecs(cfg, targets)
	var out []*listenerv3.Listener
	for _, name := range specs.Names {
		out = append(out, specs.ByName[name].Message(cfg).(*listenerv3.Listener))
	}
	return out
}

// TestTargets: each pod has a listener of each class, of the families it has.
func TestTargets(t *testing.T) {
	four, six, none, both := xdstest.Target("four"), xdstest.Target("six"), xdstest.Target("none"), xdstest.Target("both")
	four.V6, six.V4, none.V4, none.V6 = false, false, false, false
	got := map[string][]string{}
	for _, l := range listeners(podConfig(), both, four, six, none) {
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
	if n := len(listeners(podConfig())); n != 0 {
		t.Errorf("%d listeners without a pod", n)
	}
	if n := len(listeners(testConfig(), both)); n != 6 {
		t.Errorf("%d listeners in host mode, want 6", n)
	}
	cfg := podConfig()
	cfg.Address6 = netip.Addr{}
	if n := len(listeners(cfg, both, six)); n != 3 {
		t.Errorf("%d listeners without IPv6, want those of one pod", n)
	}
}
