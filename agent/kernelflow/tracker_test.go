// SPDX-License-Identifier: Apache-2.0

package kernelflow_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/kernelflow"
	"github.com/nodevoy/nodevoy/redirect/conntrack"
)

var (
	start   = time.Unix(1_800_000_000, 0)
	client  = netip.MustParseAddrPort("10.244.1.5:41522")
	service = netip.MustParseAddrPort("10.96.0.10:80")
	server  = netip.MustParseAddrPort("10.244.2.7:8080")
	compare = cmpopts.EquateComparable(netip.AddrPort{})
)

// entry is a connection of the client to the Service.
func entry(id uint32, protocol uint8) conntrack.Entry {
	return conntrack.Entry{ID: id, Protocol: protocol, From: client, To: service, Answers: server}
}

func began(e conntrack.Entry) *conntrack.Event {
	return &conntrack.Event{Kind: conntrack.Began, Entry: e}
}

func ended(e conntrack.Entry) *conntrack.Event {
	return &conntrack.Event{Kind: conntrack.Ended, Entry: e}
}

// want is the flow of such a connection, changed by change.
func want(protocol string, change func(*flow.Flow)) flow.Flow {
	f := flow.Flow{
		Time: start, Origin: flow.OriginKernel, Protocol: protocol, GRPCStatus: -1,
		Source: flow.Peer{Address: client}, Frontend: service, Backend: flow.Peer{Address: server},
	}
	change(&f)
	return f
}

func TestBeginningAndEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*conntrack.Entry)
		// after is how long after its beginning the kernel forgets it.
		after time.Duration
		want  func(*flow.Flow)
	}{
		{
			"closed", func(e *conntrack.Entry) { e.State, e.Replied, e.Assured = conntrack.StateTimeWait, true, true },
			2*time.Minute + 3*time.Second, func(f *flow.Flow) { f.Detail, f.Duration = "closed", flow.Millis(3*time.Second) },
		},
		{
			"reset", func(e *conntrack.Entry) { e.State, e.Replied, e.Assured = conntrack.StateClose, true, true },
			11 * time.Second, func(f *flow.Flow) { f.Detail, f.Duration = "reset", flow.Millis(time.Second) },
		},
		{
			"refused", func(e *conntrack.Entry) { e.State, e.Replied = conntrack.StateClose, true },
			10 * time.Second, func(f *flow.Flow) {
				f.Detail, f.Flags = "refused, or reset before it was established", []flow.Flag{"UF"}
			},
		},
		{
			"not answered", func(e *conntrack.Entry) { e.State = conntrack.StateSynSent },
			2 * time.Minute, func(f *flow.Flow) { f.Detail, f.Flags = "not answered", []flow.Flag{"UF"} },
		},
		{
			"idle", func(e *conntrack.Entry) { e.State, e.Replied, e.Assured = conntrack.StateEstablished, true, true },
			time.Hour, func(f *flow.Flow) { f.Detail = "idle for so long that the kernel forgot it" },
		},
		{
			"counted, with times", func(e *conntrack.Entry) {
				e.State, e.Replied, e.Assured = conntrack.StateTimeWait, true, true
				e.Sent, e.Received, e.Counted = 268, 169, true
				e.Stop = start.Add(2*time.Minute + time.Second)
			}, 3 * time.Minute, func(f *flow.Flow) {
				f.Detail, f.Duration, f.BytesSent, f.BytesReceived = "closed", flow.Millis(time.Second), 268, 169
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tracker, e := kernelflow.NewTracker(), entry(1, conntrack.TCP)
			open := want("TCP", func(f *flow.Flow) { f.Open = true })
			if diff := cmp.Diff([]flow.Flow{open}, tracker.Event(began(e), start), compare); diff != "" {
				t.Error(diff)
			}
			if since, known := tracker.Since(1); !known || !since.Equal(start) {
				t.Errorf("since %v, %t", since, known)
			}
			c.end(&e)
			if diff := cmp.Diff([]flow.Flow{want("TCP", c.want)}, tracker.Event(ended(e), start.Add(c.after)), compare); diff != "" {
				t.Error(diff)
			}
			if _, known := tracker.Since(1); known {
				t.Error("it is still known")
			}
		})
	}
}

// TestEndOfUDP tells the end of what was not answered, and of what was counted.
func TestEndOfUDP(t *testing.T) {
	for _, c := range []struct {
		name     string
		end      func(*conntrack.Entry)
		want     int
		detail   string
		received uint64
	}{
		{"answered", func(e *conntrack.Entry) { e.Replied = true }, 0, "", 0},
		{"not answered", func(*conntrack.Entry) {}, 1, "not answered", 0},
		{"counted", func(e *conntrack.Entry) { e.Replied, e.Counted, e.Received = true, true, 34 }, 1, "", 34},
	} {
		tracker, e := kernelflow.NewTracker(), entry(1, conntrack.UDP)
		tracker.Event(began(e), start)
		c.end(&e)
		flows := tracker.Event(ended(e), start.Add(time.Minute))
		if len(flows) != c.want || c.want > 0 && (flows[0].Detail != c.detail || flows[0].BytesReceived != c.received || flows[0].Failed()) {
			t.Errorf("%s: told %+v", c.name, flows)
		}
	}
}

// TestEndOfUnknown tells nothing of what it has not seen begin, or be there.
func TestEndOfUnknown(t *testing.T) {
	tracker, e := kernelflow.NewTracker(), entry(1, conntrack.TCP)
	if flows := tracker.Event(ended(e), start); len(flows) > 0 {
		t.Errorf("told: %v", flows)
	}
	tracker.See(&e, start)
	tracker.See(&e, start.Add(time.Hour))
	flows := tracker.Event(ended(e), start.Add(time.Minute))
	if len(flows) != 1 || !flows[0].Time.Equal(start) {
		t.Errorf("told of what was there: %v", flows)
	}
}

// TestMerge tells the first of many one by one, and the others together.
func TestMerge(t *testing.T) {
	for _, c := range []struct {
		protocol uint8
		single   int
		wait     time.Duration
	}{{conntrack.TCP, 5, 10 * time.Second}, {conntrack.UDP, 1, time.Minute}} {
		tracker, told := kernelflow.NewTracker(), 0
		for i := range 100 {
			e := entry(uint32(i), c.protocol)
			e.From = netip.AddrPortFrom(client.Addr(), uint16(1000+i))
			told += len(tracker.Event(began(e), start.Add(time.Duration(i)*time.Millisecond)))
		}
		if told != c.single {
			t.Errorf("protocol %d: %d told at once, want %d", c.protocol, told, c.single)
		}
		other := entry(1000, c.protocol)
		other.Answers = netip.MustParseAddrPort("10.244.2.8:8080")
		if flows := tracker.Event(began(other), start); len(flows) != 1 {
			t.Errorf("protocol %d: another backend waits for the first", c.protocol)
		}
		if flows := tracker.Flush(start.Add(c.wait - time.Second)); len(flows) > 0 {
			t.Errorf("protocol %d: told too early: %v", c.protocol, flows)
		}
		flows := tracker.Flush(start.Add(c.wait + time.Second))
		if len(flows) != 1 || flows[0].Connections != 100-c.single || flows[0].Source.Address.Port() != 1099 {
			t.Errorf("protocol %d: told later: %v", c.protocol, flows)
		}
		if flows := tracker.Event(began(entry(2000, c.protocol)), start.Add(c.wait+2*time.Second)); len(flows) != 1 || flows[0].Connections != 0 {
			t.Errorf("protocol %d: told anew: %v", c.protocol, flows)
		}
	}
}

// TestMergeOfLateFlow tells what waited when the next of its kind comes before a flush.
func TestMergeOfLateFlow(t *testing.T) {
	tracker := kernelflow.NewTracker()
	for i := range 3 {
		tracker.Event(began(entry(uint32(i), conntrack.UDP)), start)
	}
	flows := tracker.Event(began(entry(3, conntrack.UDP)), start.Add(time.Minute))
	if len(flows) != 2 || flows[0].Connections != 2 || flows[1].Connections != 0 {
		t.Errorf("told: %v", flows)
	}
}

// TestTrackerIsBounded has more connections, and more kinds of them, than are kept.
func TestTrackerIsBounded(t *testing.T) {
	tracker, told := kernelflow.NewTracker(), 0
	const n = 1<<16 + 1000
	for i := range n {
		e := entry(uint32(i), conntrack.UDP)
		e.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 53)
		told += len(tracker.Event(began(e), start))
	}
	known := 0
	for i := range n {
		if _, is := tracker.Since(uint32(i)); is {
			known++
		}
	}
	if told != n || known > 1<<16 {
		t.Errorf("%d told, %d known", told, known)
	}
}

func TestRedirected(t *testing.T) {
	listener, backend := netip.MustParseAddr("169.254.64.15"), netip.MustParseAddrPort("10.244.2.7:8080")
	straight, foreign := entry(1, conntrack.TCP), entry(2, conntrack.TCP)
	straight.To, foreign.To = backend, backend
	foreign.From = netip.MustParseAddrPort("10.244.1.6:41522")
	toListener := entry(3, conntrack.TCP)
	toListener.Answers = netip.AddrPortFrom(listener, 23722)
	elsewhere := straight
	elsewhere.To = netip.MustParseAddrPort("10.244.2.9:8080")
	elsewhere.Answers = elsewhere.To
	udp := straight
	udp.Protocol = conntrack.UDP
	pod := kernelflow.Redirected{
		Pods: map[netip.Addr]bool{client.Addr(): true}, Backend: func(at netip.AddrPort) bool { return at == backend },
	}
	host := kernelflow.Redirected{Listeners: []netip.Addr{listener}}
	for _, c := range []struct {
		name  string
		by    kernelflow.Redirected
		entry conntrack.Entry
		want  bool
	}{
		{"host: to Envoy's listener", host, toListener, true},
		{"host: by kube-proxy", host, entry(4, conntrack.TCP), false},
		{"pod: Envoy to a backend", pod, straight, true},
		{"pod: another pod to the backend", pod, foreign, false},
		{"pod: to what Envoy doesn't have", pod, elsewhere, false},
		{"pod: by kube-proxy", pod, entry(5, conntrack.TCP), false},
		{"pod: UDP", pod, udp, false},
	} {
		if got := c.by.Has(&c.entry); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func TestRate(t *testing.T) {
	for text, want := range map[string]kernelflow.Rate{"off": 0, "1": 1, "500": 500, "10000": 10_000} {
		var r kernelflow.Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%s: %d, %v", text, r, err)
		}
		if back, err := r.MarshalText(); err != nil || string(back) != text {
			t.Errorf("%s: written as %s, %v", text, back, err)
		}
	}
	for _, text := range []string{"", "on", "0", "-1", "10001", "1.5"} {
		if err := new(kernelflow.Rate).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
