// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/redirect/conntrack"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// listenTo opens a listener for the events of connections of these addresses.
func listenTo(t *testing.T, buffer int, sources ...netip.Addr) *conntrack.Listener {
	t.Helper()
	l, err := conntrack.Listen(buffer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := l.SetFilter(conntrack.Filter{Sources: sources, Share: conntrack.Whole}); err != nil {
		t.Fatal(err)
	}
	return l
}

// heard are the events of the next second, or until enough is true of them, and how many
// were lost.
func heard(t *testing.T, l *conntrack.Listener, enough func([]conntrack.Event) bool) (events []conntrack.Event, lost uint64) {
	t.Helper()
	until := time.Now().Add(time.Second)
	for !enough(events) {
		n, err := l.Read(until, func(e *conntrack.Event) { events = append(events, *e) })
		lost += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return events, lost
}

// TestConntrackEvents calls Services of kube-proxy's in both of its modes: the beginning
// and the end of each connection are told, with the Service's address and the pod that
// answers, and nothing of another pod.
func TestConntrackEvents(t *testing.T) {
	for _, s := range []setting{
		{plan.DNAT, netfilter.NFT, space.Unnumbered, false, "iptables"},
		{plan.DNAT, netfilter.NFT, space.Bridged, false, "iptables"},
		{plan.TPROXY, netfilter.NFT, space.Unnumbered, false, "nftables"},
	} {
		t.Run(s.String(), func(t *testing.T) {
			w := newFixture(t, s)
			l := listenTo(t, conntrack.Buffer, w.stranger.V4, w.stranger.V6)
			for _, f := range family.All() {
				from := map[family.Family]netip.Addr{family.V4: w.stranger.V4, family.V6: w.stranger.V6}[f]
				for _, pod := range []*space.Pod{w.enrolled, w.stranger} {
					conn, err := pod.Dial(at(f, httpService))
					if err != nil {
						t.Fatal(err)
					}
					if _, err := conn.Ask(); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = conn.Close() })
				}
				is := func(e conntrack.Entry) bool {
					return e.Protocol == conntrack.TCP && e.From.Addr() == from && e.To == at(f, httpService) && e.Answers == at(f, backend)
				}
				one := func(kind conntrack.Kind) func([]conntrack.Event) bool {
					return func(all []conntrack.Event) bool { return len(all) > 0 && all[0].Kind == kind }
				}
				began, _ := heard(t, l, one(conntrack.Began))
				if len(began) != 1 || began[0].Kind != conntrack.Began || !is(began[0].Entry) {
					t.Fatalf("%s: began: %v", f, began)
				}
				listed := 0
				if err := conntrack.List(func(e *conntrack.Entry) {
					if is(*e) && e.ID == began[0].ID && e.State == conntrack.StateEstablished && e.Assured {
						listed++
					}
				}); err != nil || listed != 1 {
					t.Errorf("%s: listed %d times, %v", f, listed, err)
				}
				w.Run(fmt.Sprintf("conntrack -D -p tcp -f %s -s %s", map[family.Family]string{family.V4: "ipv4", family.V6: "ipv6"}[f], from))
				ended, _ := heard(t, l, one(conntrack.Ended))
				if len(ended) != 1 || ended[0].ID != began[0].ID || !is(ended[0].Entry) || ended[0].State != conntrack.StateEstablished {
					t.Errorf("%s: ended: %v", f, ended)
				}
			}
		})
	}
}

// TestConntrackOverrun makes more connections than the socket has room for, while nobody
// reads: the losses are counted, and later connections are told.
func TestConntrackOverrun(t *testing.T) {
	w := newFixture(t, setting{plan.DNAT, netfilter.NFT, space.Unnumbered, false, "iptables"})
	l := listenTo(t, 64<<10, w.stranger.V4)
	const n = 500
	call := func(port int) {
		// Each port is a connection of its own to conntrack.
		conn, err := w.stranger.DialAs(netip.AddrPortFrom(w.backend.V4, uint16(port)), space.Caller{UDP: true})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Tell() // It may be refused.
		_ = conn.Close()
	}
	for i := range n {
		call(10_000 + i)
	}
	began := func(all []conntrack.Event) (n int) {
		for _, e := range all {
			if e.Kind == conntrack.Began {
				n++
			}
		}
		return n
	}
	events, lost := heard(t, l, func([]conntrack.Event) bool { return false })
	if lost == 0 || began(events) == 0 || uint64(began(events))+lost < n {
		t.Errorf("%d of %d were told, %d lost", began(events), n, lost)
	}
	call(9000)
	later, lost := heard(t, l, func(all []conntrack.Event) bool { return len(all) > 0 })
	if began(later) != 1 || later[0].To.Port() != 9000 || lost > 0 {
		t.Errorf("told later: %v, %d lost", later, lost)
	}
}
