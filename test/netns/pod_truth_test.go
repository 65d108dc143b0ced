// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/tracer"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// podTruth is what must become of a connection of a pod where pods are redirected
// in their own namespaces. It is run twice: by Trace, and by real packets.
type podTruth struct {
	what, from, to string
	as             space.Caller
	// foreign is set for a connection from an address of the pod that Kubernetes
	// knows nothing of.
	foreign bool
	// want is the class whose listener takes it, or who else does.
	want string
	// released is set where pods are not redirected at the time.
	released bool
}

// Places that only pods know.
const (
	ownAddress = "own address"
	loopback   = "loopback"
	// metadata is a link-local address that somebody put into a set.
	metadata = "metadata"
	// foreign is an address of the enrolled pod beyond its own.
	foreign = "foreign address"
)

// ownMark is what Envoy puts on its own connections.
const ownMark = 0x10

func podTruths() []podTruth {
	return []podTruth{
		{what: "class http", from: "enrolled", to: httpService, want: "http"},
		{what: "class tcp", from: "enrolled", to: tcpService, want: "tcp"},
		{what: "class detect", from: "enrolled", to: detectService, want: "detect"},
		{what: "left to kube-proxy", from: "enrolled", to: bypassed, want: "pod"},
		{what: "no backends", from: "enrolled", to: idle, want: "refused"},
		{what: "a pod itself", from: "enrolled", to: backend, want: "pod"},
		{what: "Envoy's own connection", from: "enrolled", to: httpService, as: space.Caller{Mark: ownMark}, want: "pod"},
		{what: "a mark with other bits", from: "enrolled", to: httpService, as: space.Caller{Mark: 0x4100}, want: "http"},
		{what: "the mark among other bits", from: "enrolled", to: httpService, as: space.Caller{Mark: 0x4110}, want: "pod"},
		{what: "loopback", from: "enrolled", to: loopback, want: "self"},
		{what: "own address", from: "enrolled", to: ownAddress, want: "self"},
		{what: "link-local", from: "enrolled", to: metadata, want: "metadata"},
		{what: "foreign source", from: "enrolled", to: httpService, foreign: true, want: "pod"},
		{what: "UDP to an address of a set", from: "enrolled", to: backend, as: space.Caller{UDP: true}, want: "datagram"},
		{what: "the probe", from: "enrolled", to: "http-listener", want: "http"},
		{what: "not enrolled", from: "stranger", to: httpService, want: "pod"},
		{what: "expired", from: "enrolled", to: httpService, released: true, want: "pod"},
		{what: "expired", from: "enrolled", to: backend, released: true, want: "pod"},
	}
}

// podAt is at, with the destinations that only pods know.
func podAt(f family.Family, destination string) netip.AddrPort {
	four, six := "", ""
	switch destination {
	case ownAddress:
		four, six = "10.1.0.2:8080", "[fd01::2]:8080"
	case loopback:
		four, six = "127.0.0.1:8080", "[::1]:8080"
	case metadata:
		four, six = "169.254.169.254:80", "[fe80::a9fe]:80"
	case foreign:
		four, six = "10.1.0.200:0", "[fd01::200]:0"
	case "http-listener":
		four, six = "127.0.0.1:23722", "[::1]:23722"
	default:
		return at(f, destination)
	}
	if f == family.V6 {
		return netip.MustParseAddrPort(six)
	}
	return netip.MustParseAddrPort(four)
}

// inSet are addresses that a hand put into the set of class http: rules must not
// rely on sets alone.
func inSet() []string { return []string{ownAddress, loopback, metadata} }

func TestPodTruthByTracing(t *testing.T) {
	desired := plan.Compile(view(), podConfig("nft"))
	expired := plan.Compile(view(), podConfig("nft"))
	for i := range desired.Pods[0].Families {
		fp := &desired.Pods[0].Families[i]
		for _, destination := range inSet() {
			set := &fp.Frontends[0]
			set.Members = insert(set.Members, podAt(fp.Family, destination))
		}
		expired.Pods[0].Families[i].Pods.Members = nil
	}
	for _, f := range family.All() {
		for _, row := range podTruths() {
			p := tracer.Packet{Pod: "shop/enrolled", From: podAt(f, ownAddress).Addr(), To: podAt(f, row.to), Out: "eth0", Mark: uint32(row.as.Mark), UDP: row.as.UDP}
			if row.foreign {
				p.From = podAt(f, foreign).Addr()
			}
			switch row.to {
			case ownAddress, loopback, "http-listener":
				p.Out = "lo"
			}
			if row.from != "enrolled" {
				p.Pod = "other/" + row.from
			}
			with := desired
			if row.released {
				with = expired
			}
			v, err := tracer.Trace(with, p)
			if err != nil {
				t.Fatal(err)
			}
			want := netip.AddrPort{}
			if (row.want == "http" || row.want == "tcp" || row.want == "detect") && row.to != "http-listener" {
				want = netip.AddrPortFrom(f.Loopback(), listener(podConfig("nft"), f, row.want+"-listener").Port())
			}
			if v.Listener != want {
				t.Errorf("%s %s: to listener %s, want %s; rules met: %q", f, row.what, v.Listener, want, v.Steps)
			}
		}
	}
}

func TestPodTruthByPackets(t *testing.T) {
	for _, b := range backends() {
		t.Run(string(b), func(t *testing.T) {
			w := newPodFixtureApplied(t, b)
			for _, f := range family.All() {
				w.furnish(f)
			}
			for _, released := range []bool{false, true} {
				if released {
					w.must(w.pods.Disengage())
				}
				for _, f := range family.All() {
					for _, row := range podTruths() {
						if row.released == released {
							w.checkPodTruth(f, row)
						}
					}
				}
			}
		})
	}
}

// furnish adds to the enrolled pod what only this table needs.
func (w *podFixture) furnish(f family.Family) {
	w.t.Helper()
	bits := map[family.Family]string{family.V4: "/24", family.V6: "/64"}[f]
	// Deprecated: chosen by nobody who doesn't ask for it.
	w.enrolled.Run(w.Node, "ip address add "+podAt(f, foreign).Addr().String()+bits+" dev eth0 nodad preferred_lft 0")
	w.enrolled.Listen(w.Node, "self", podAt(f, ownAddress))
	w.enrolled.Listen(w.Node, "self", podAt(f, loopback))
	for _, destination := range inSet() {
		to := podAt(f, destination)
		w.enrolled.Run(w.Node, fmt.Sprintf("ipset add nodevoy-http%s %s,tcp:%d", f.Digit(), to.Addr(), to.Port()))
	}
	w.backend.Echo(w.Node, "datagram", at(f, backend))
	w.enrolled.Run(w.Node, "ipset add nodevoy-http"+f.Digit()+" "+at(f, backend).Addr().String()+",udp:8080")
	// The node's metadata service.
	if f == family.V4 {
		w.Run("ip address add 169.254.169.254/32 dev br0")
		w.enrolled.Run(w.Node, "ip route add 169.254.169.254/32 dev eth0")
		w.Listen("metadata", podAt(f, metadata), false)
		return
	}
	w.Run("ip address add fe80::a9fe/64 dev br0 nodad")
	w.Listen("metadata", netip.AddrPortFrom(podAt(f, metadata).Addr().WithZone("br0"), 80), false)
}

func (w *podFixture) checkPodTruth(f family.Family, row podTruth) {
	w.t.Helper()
	to, as := podAt(f, row.to), row.as
	if row.foreign {
		as.Address = podAt(f, foreign).Addr()
	}
	if row.to == metadata && f == family.V6 {
		to = netip.AddrPortFrom(to.Addr().WithZone("eth0"), to.Port())
	}
	want := row.want
	if want != "refused" {
		meant := to
		if row.want == "pod" || row.want == "datagram" {
			meant = at(f, backend)
		}
		want += " " + netip.AddrPortFrom(meant.Addr().WithZone(""), meant.Port()).String()
	}
	dial := func(to netip.AddrPort) (*space.Conn, error) { return w.source(row.from).DialAs(to, as) }
	got := space.Reached(dial, to)
	if got != want {
		w.t.Errorf("%s %s: %s, want %s", f, row.what, got, want)
	}
}

// insert puts a member into a sorted copy.
func insert(members []netip.AddrPort, m netip.AddrPort) []netip.AddrPort {
	var all []netip.AddrPort
	for i, have := range members {
		if len(all) == i && m.Compare(have) < 0 {
			all = append(all, m)
		}
		all = append(all, have)
	}
	if len(all) == len(members) {
		all = append(all, m)
	}
	return all
}
