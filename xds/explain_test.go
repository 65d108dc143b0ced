// SPDX-License-Identifier: Apache-2.0

package xds_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

// TestExplain wants the names to be those of resources that there are.
func TestExplain(t *testing.T) {
	clusters := map[model.Class][]string{
		model.ClassHTTP:   {"HTTP/1.1 10.96.0.1:80", "HTTP/1.0 10.96.0.1:80", "HTTP/2 10.96.0.1:80", "http HTTP/1.1 10.96.0.1:80", "http HTTP/1.0 10.96.0.1:80"},
		model.ClassTCP:    {"tcp 10.96.0.1:80"},
		model.ClassDetect: {"HTTP/1.1 10.96.0.1:80", "HTTP/1.0 10.96.0.1:80", "HTTP/2 10.96.0.1:80", "http HTTP/1.1 10.96.0.1:80", "http HTTP/1.0 10.96.0.1:80", "tcp 10.96.0.1:80", "tls 10.96.0.1:80"},
	}
	target := xdstest.Target("one")
	for _, pods := range []bool{true, false} {
		cfg := xds.Default()
		cfg.PodMode = pods
		cfg.Address4, cfg.Address6 = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
		for class, want := range clusters {
			f := &model.Frontend{Address: netip.MustParseAddrPort("10.96.0.1:80"), Class: class, Backends: []model.Backend{{Address: netip.MustParseAddrPort("10.1.0.1:80")}}}
			path := xds.Explain(cfg, target, f)
			if diff := cmp.Diff(want, path.Clusters); diff != "" {
				t.Errorf("%s (-want +got):\n%s", class, diff)
			}
			if (path.Route == "") != (class == model.ClassTCP) {
				t.Errorf("%s: route %q", class, path.Route)
			}
			translation := xds.NewTranslation(cfg, &model.Node{}, []model.PodTarget{target}, nil)
			if _, is := translation.Listeners().ByName[path.Listener]; !is {
				t.Errorf("%s: there is no listener %q, but %q", class, path.Listener, translation.Listeners().Names)
			}
		}
	}
}
