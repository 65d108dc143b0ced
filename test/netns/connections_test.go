// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/connections"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// lister lists connections by calls of its argument.
type lister func(found func(to netip.AddrPort, live bool)) error

// all are the connections by destination, and whether any of them goes on.
func (l lister) all(t *testing.T) map[netip.AddrPort]bool {
	t.Helper()
	var mu sync.Mutex
	all := map[netip.AddrPort]bool{}
	if err := l(func(to netip.AddrPort, live bool) {
		mu.Lock()
		defer mu.Unlock()
		all[to] = all[to] || live
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// filter is for the connections that are redirected in this way.
func filter(cfg plan.Config) connections.Filter {
	f := connections.Filter{Transparent: cfg.Mode != plan.PodMode && cfg.Mechanism == plan.TPROXY}
	for _, family := range family.All() {
		f.Listeners = append(f.Listeners, cfg.Address(family))
	}
	return f
}

// checkConnections dials Services from a pod that is redirected, and from one that is
// not: the list has those of the first, as it means them, for as long as they go on.
func checkConnections(t *testing.T, list lister, enrolled, stranger *space.Pod) {
	t.Helper()
	var open []*space.Conn
	for _, f := range family.All() {
		for _, c := range []struct {
			from *space.Pod
			to   string
		}{{enrolled, httpService}, {enrolled, tcpService}, {stranger, detectService}} {
			conn, err := c.from.Dial(at(f, c.to))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Ask(); err != nil {
				t.Fatal(err)
			}
			open = append(open, conn)
		}
	}
	all := list.all(t)
	for _, f := range family.All() {
		if !all[at(f, httpService)] || !all[at(f, tcpService)] {
			t.Errorf("%s: connections through Envoy are missing: %v", f, all)
		}
		if _, is := all[at(f, detectService)]; is {
			t.Errorf("%s: a connection past Envoy is listed: %v", f, all)
		}
	}
	for _, c := range open {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	space.Until(t, limit, "connections to end", func() error {
		for to, live := range list.all(t) {
			if live {
				return fmt.Errorf("the connection to %s goes on", to)
			}
		}
		return nil
	})
}

// TestConnections lists connections in host mode, by both mechanisms.
func TestConnections(t *testing.T) {
	for _, s := range []setting{
		{plan.DNAT, netfilter.NFT, space.Unnumbered, false, "iptables"},
		{plan.TPROXY, netfilter.NFT, space.Unnumbered, false, "nftables"},
	} {
		t.Run(s.String(), func(t *testing.T) {
			w := newFixtureApplied(t, s)
			list := func(found func(netip.AddrPort, bool)) error { return connections.List(filter(w.cfg), found) }
			checkConnections(t, list, w.enrolled, w.stranger)
		})
	}
}

// TestConnectionsOfPods lists them in the pods' network namespaces.
func TestConnectionsOfPods(t *testing.T) {
	w := newPodFixtureApplied(t, netfilter.NFT)
	list := func(found func(netip.AddrPort, bool)) error { return w.pods.Connections(filter(w.cfg), found) }
	checkConnections(t, list, w.enrolled, w.stranger)
}
