// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Messages that a kernel 6.18 sent, of connections to Services that kube-proxy's kind of
// rules translated.
const (
	tcpBegan = "c4000000000100060000000000000000020000003400018014000180080001000af40105080002000a60000a1c000280050001000600000006000200a232000006000300005000003400028014000180080001000af40207080002000af401051c0002800500010006000000060002001f90000006000300a232000008000c002c1ef73808000300000001a80800070000000078300004802c0001800500010001000000050002000a000000050003000000000006000400030000000600050000000000"
	tcpEnded = "0401000002010000000000003c908df7020000003400018014000180080001000af40105080002000a60000a1c000280050001000600000006000200a232000006000300005000003400028014000180080001000af40207080002000af401051c0002800500010006000000060002001f90000006000300a232000008000c002932fd4f08000300000003ae08000700000000771c0009800c00010000000000000000050c000200000000000000010c1c000a800c00010000000000000000030c00020000000000000000a91c0014800c00010018ecb8ed03c757460c00020018ecb8ed2a2d0261100004800c00018005000100070000000c001b0018ecb8ed2a2d0346"
	udpBegan = "94000000000100060000000000000000020000003400018014000180080001000af40105080002000a60000a1c00028005000100110000000600020014e9000006000300003500003400028014000180080001000af40207080002000af401051c0002800500010011000000060002001f7500000600030014e9000008000c001c0cce7908000300000001a8080007000000001e"
	udpEnded = "cc0000000201000000000000b63e4ff4020000003400018014000180080001000af40105080002000a60000a1c00028005000100110000000600020014e9000006000300003500003400028014000180080001000af40207080002000af401051c0002800500010011000000060002001f7500000600030014e9000008000c001c0cce7908000300000003aa080007000000001d1c0009800c00010000000000000000010c000200000000000000001d1c000a800c00010000000000000000010c0002000000000000000022"
	tcp6     = "f40000000001000600000000000000000a0000004c0001802c00018014000300fd00001000000000000000000000000514000400fd9600000000000000000000000000101c000280050001000600000006000200a233000006000300005000004c0002802c00018014000300fd00001000000000000000000000000714000400fd0000100000000000000000000000051c0002800500010006000000060002001f90000006000300a233000008000c00ad096d5a08000300000001a80800070000000078300004802c0001800500010001000000050002000a0000000500030000000000060004000300000006000500000000000"
)

// message is the bytes of a recorded one.
func message(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text[:len(text)&^1])
	if err != nil {
		t.Fatal(err)
	}
	if size := int(binary.NativeEndian.Uint32(b)); size != len(b) {
		t.Fatalf("the recorded message has %d bytes and says %d", len(b), size)
	}
	return b
}

var (
	client, client6     = netip.MustParseAddrPort("10.244.1.5:41522"), netip.MustParseAddrPort("[fd00:10::5]:41523")
	service, service6   = netip.MustParseAddrPort("10.96.0.10:80"), netip.MustParseAddrPort("[fd96::10]:80")
	server, server6     = netip.MustParseAddrPort("10.244.2.7:8080"), netip.MustParseAddrPort("[fd00:10::7]:8080")
	resolver            = netip.MustParseAddrPort("10.244.1.5:5353")
	dnsName, dnsBackend = netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("10.244.2.7:8053")
)

// recorded are the messages and what they say.
func recorded() map[string]Event {
	return map[string]Event{
		tcpBegan: {Began, Entry{ID: 0x2c1ef738, Protocol: TCP, From: client, To: service, Answers: server, State: StateSynSent}},
		tcpEnded: {Ended, Entry{
			ID: 0x2932fd4f, Protocol: TCP, From: client, To: service, Answers: server, State: StateTimeWait, Replied: true, Assured: true,
			Sent: 268, Received: 169, Counted: true, Start: time.Unix(0, 0x18ecb8ed03c75746), Stop: time.Unix(0, 0x18ecb8ed2a2d0261),
		}},
		udpBegan: {Began, Entry{ID: 0x1c0cce79, Protocol: UDP, From: resolver, To: dnsName, Answers: dnsBackend}},
		udpEnded: {Ended, Entry{
			ID: 0x1c0cce79, Protocol: UDP, From: resolver, To: dnsName, Answers: dnsBackend, Replied: true, Sent: 29, Received: 34, Counted: true,
		}},
		tcp6: {Began, Entry{ID: 0xad096d5a, Protocol: TCP, From: client6, To: service6, Answers: server6, State: StateSynSent}},
	}
}

func TestParse(t *testing.T) {
	for text, want := range recorded() {
		var got []Event
		l := &Listener{}
		if err := l.parse(message(t, text), func(e *Event) { got = append(got, *e) }); err != nil {
			t.Errorf("%v: %v", want, err)
		}
		if diff := cmp.Diff([]Event{want}, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Error(diff)
		}
	}
}

// TestParseSeveral reads several messages of one read, and passes others over.
func TestParseSeveral(t *testing.T) {
	other := message(t, udpBegan)
	binary.NativeEndian.PutUint16(other[4:], 1<<8|3) // Of expected connections, say.
	b := append(append(message(t, tcpBegan), other...), message(t, tcp6)...)
	var got []netip.AddrPort
	if err := (&Listener{}).parse(b, func(e *Event) { got = append(got, e.From) }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]netip.AddrPort{client, client6}, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Error(diff)
	}
}

// TestParseOtherProtocol passes ICMP over.
func TestParseOtherProtocol(t *testing.T) {
	b := message(t, udpBegan)
	b[52] = 1
	if e, err := Parse(b[netlinkHeader:]); err != nil || e != (Entry{}) {
		t.Errorf("got %v, %v", e, err)
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	l, b, seen := &Listener{}, message(t, tcpEnded), 0
	found := func(e *Event) { seen += int(e.Protocol) }
	if n := testing.AllocsPerRun(100, func() {
		if err := l.parse(b, found); err != nil {
			t.Error(err)
		}
	}); n > 0 || seen == 0 {
		t.Errorf("%g allocations", n)
	}
}

// FuzzParse gives bytes that no kernel sends: nothing panics.
func FuzzParse(f *testing.F) {
	for text := range recorded() {
		f.Add(message(f, text))
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = (&Listener{}).parse(b, func(*Event) {})
	})
}
