// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
)

// machine runs the program of a filter.
func machine(t *testing.T, f Filter, withSources bool) *bpf.VM {
	t.Helper()
	raw, err := f.program(withSources)
	if err != nil {
		t.Fatal(err)
	}
	program, whole := bpf.Disassemble(raw)
	if !whole || len(program) > 4096 {
		t.Fatalf("a program of %d instructions, known: %t", len(program), whole)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func passes(t *testing.T, vm *bpf.VM, message []byte) bool {
	t.Helper()
	n, err := vm.Run(message)
	if err != nil {
		t.Fatal(err)
	}
	return n >= len(message)
}

// with is a message of IPv4 with other addresses and ports of the client.
func with(message []byte, from, to netip.AddrPort) []byte {
	out := append([]byte{}, message...)
	src, dst := from.Addr().As4(), to.Addr().As4()
	copy(out[32:], src[:])
	copy(out[40:], dst[:])
	binary.BigEndian.PutUint16(out[60:], from.Port())
	binary.BigEndian.PutUint16(out[68:], to.Port())
	return out
}

func TestFilterSources(t *testing.T) {
	for _, c := range []struct {
		name    string
		sources []netip.Addr
		message string
		want    bool
	}{
		{"v4", []netip.Addr{client.Addr()}, tcpBegan, true},
		{"v4 ended", []netip.Addr{client.Addr()}, tcpEnded, true},
		{"v4 udp", []netip.Addr{client.Addr()}, udpBegan, true},
		{"v6", []netip.Addr{client6.Addr()}, tcp6, true},
		{"another v4", []netip.Addr{server.Addr()}, tcpBegan, false},
		{"another v6", []netip.Addr{server6.Addr()}, tcp6, false},
		{"nobody", nil, tcpBegan, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			vm := machine(t, Filter{Sources: c.sources, Share: Whole}, true)
			if got := passes(t, vm, message(t, c.message)); got != c.want {
				t.Errorf("passes: %t", got)
			}
		})
	}
}

// TestFilterExcept drops what is answered by an address.
func TestFilterExcept(t *testing.T) {
	for text, answers := range map[string]netip.Addr{tcpBegan: server.Addr(), udpEnded: dnsBackend.Addr(), tcp6: server6.Addr()} {
		f := Filter{Sources: []netip.Addr{client.Addr(), client6.Addr()}, Share: Whole, Except: []netip.Addr{
			service.Addr(), service6.Addr(), netip.MustParseAddr("fd00:99::7"), // The last ends as server6 does.
		}}
		if !passes(t, machine(t, f, true), message(t, text)) {
			t.Errorf("answered by %s: dropped", answers)
		}
		f.Except = append(f.Except, answers)
		if passes(t, machine(t, f, true), message(t, text)) {
			t.Errorf("answered by %s: passes", answers)
		}
	}
}

// TestFilterManySources finds each of many addresses, and none between them.
func TestFilterManySources(t *testing.T) {
	for _, n := range []int{1, 4, 5, 17, 250, maxSources} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			var f Filter
			f.Share = Whole
			for i := range n {
				f.Sources = append(f.Sources, netip.AddrFrom4([4]byte{10, 244, byte(i / 100), byte(2 * (i % 100))}))
			}
			vm, recorded := machine(t, f, true), message(t, tcpBegan)
			for _, ip := range f.Sources {
				if !passes(t, vm, with(recorded, netip.AddrPortFrom(ip, 1), service)) {
					t.Errorf("%s is dropped", ip)
				}
				if passes(t, vm, with(recorded, netip.AddrPortFrom(ip.Next(), 1), service)) {
					t.Errorf("%s passes", ip.Next())
				}
			}
		})
	}
}

// TestFilterWithoutSources is for the kernel that takes no larger program.
func TestFilterWithoutSources(t *testing.T) {
	vm := machine(t, Filter{Sources: []netip.Addr{server.Addr()}, Share: Whole}, false)
	if !passes(t, vm, message(t, tcpBegan)) {
		t.Error("dropped")
	}
}

func TestFilterOther(t *testing.T) {
	vm := machine(t, Filter{Sources: []netip.Addr{client.Addr()}, Share: Whole}, true)
	icmp, unknown := message(t, tcpBegan), message(t, tcpBegan)
	icmp[52] = 1
	unknown[22] = 9
	if passes(t, vm, icmp) {
		t.Error("ICMP passes")
	}
	if !passes(t, vm, unknown) {
		t.Error("a message of unknown layout is dropped")
	}
}

// TestFilterShare chooses by addresses and ports, as many as asked for, an end with its
// beginning, and in the kernel the same as here.
func TestFilterShare(t *testing.T) {
	const n = 20_000
	random := rand.New(rand.NewPCG(1, 2))
	f := Filter{Sources: []netip.Addr{client.Addr()}, Share: Whole / 10}
	vm, began, ended := machine(t, f, true), message(t, tcpBegan), message(t, tcpEnded)
	passed := 0
	for range n {
		// Few Services and consecutive ports, as clients have them.
		e := Entry{
			From: netip.AddrPortFrom(client.Addr(), uint16(32768+2*random.IntN(14000))),
			To:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, 0, byte(random.IntN(5))}), 80),
		}
		got := passes(t, vm, with(began, e.From, e.To))
		if got != passes(t, vm, with(ended, e.From, e.To)) {
			t.Fatalf("%v: beginning and end are not treated alike", e)
		}
		if got != (e.hash() < f.Share) {
			t.Fatalf("%v: the program says %t", e, got)
		}
		if got {
			passed++
		}
	}
	if passed < n*8/100 || passed > n*12/100 {
		t.Errorf("%d of %d pass, want a tenth", passed, n)
	}
	e := Entry{From: client6, To: service6}
	six := machine(t, Filter{Sources: []netip.Addr{client6.Addr()}, Share: e.hash() + 1}, true)
	less := machine(t, Filter{Sources: []netip.Addr{client6.Addr()}, Share: e.hash()}, true)
	if !passes(t, six, message(t, tcp6)) || passes(t, less, message(t, tcp6)) {
		t.Errorf("IPv6: the program has another hash than %d", e.hash())
	}
}

// hash is what sample compares with the share: below Whole.
func (e *Entry) hash() uint32 {
	var h uint32
	for _, step := range []struct{ value, factor uint32 }{
		{low(e.From.Addr()), factor1},
		{low(e.To.Addr()), factor2},
		{uint32(e.To.Port())<<16 | uint32(e.From.Port()), factor3},
	} {
		h = (h ^ step.value) * step.factor
		h ^= h >> 15
	}
	return h * factor1 >> 12
}
