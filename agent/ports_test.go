// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// TestBindable: a listener keeps a port from an agent that looks for its own;
// the connections that it leaves behind do not.
func TestBindable(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	if err := bindable(at); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("while somebody listens: %v", err)
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	// The accepting side is the first to close, and stays for a minute.
	if err := errors.Join(accepted.Close(), conn.Close(), ln.Close()); err != nil {
		t.Fatal(err)
	}
	if err := bindable(at); err != nil {
		t.Errorf("once nobody listens: %v", err)
	}
}

// TestPortsFree: a listener on any address of any family keeps the ports from an
// agent; what can't be told is neither free nor taken.
func TestPortsFree(t *testing.T) {
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"} {
		ln, err := (&net.ListenConfig{}).Listen(t.Context(), network, address)
		if err != nil {
			t.Fatal(err)
		}
		cfg := DefaultConfig()
		cfg.Redirect.Address4, cfg.Redirect.Address6 = family.V4.Loopback(), family.V6.Loopback()
		cfg.Redirect.Ports.Detect = ln.Addr().(*net.TCPAddr).AddrPort().Port()
		if free, err := portsFree(cfg); free || err != nil {
			t.Errorf("%s, while somebody listens: free %v, error %v", network, free, err)
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		if free, err := portsFree(cfg); !free || err != nil {
			t.Errorf("%s, once nobody listens: free %v, error %v", network, free, err)
		}
	}
	cfg := DefaultConfig()
	cfg.Redirect.Address6 = netip.MustParseAddr("fe80::1") // which needs an interface
	if free, err := portsFree(cfg); free || err == nil {
		t.Errorf("an address that nobody can bind: free %v, error %v", free, err)
	}
}

// TestDefaultPorts: the ports of no generation, nor that of metrics, are others': node
// ports, those that Linux gives to clients, Istio's, or assigned by IANA.
func TestDefaultPorts(t *testing.T) {
	cfg := DefaultConfig()
	_, port, err := net.SplitHostPort(cfg.MetricsAddress)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	all := []uint16{uint16(metrics)}
	for slot := range handover.Slots {
		all = append(all, cfg.inSlot(slot).Redirect.Ports.All()...)
	}
	for i, p := range all {
		if p < 23547 || p > 23999 || slices.Contains(all[:i], p) {
			t.Errorf("port %d of %v", p, all)
		}
	}
}

// TestListenerPortsOfAllSlots: which ports pods can't have doesn't depend on the slot
// that an agent got; in host mode they may have all.
func TestListenerPortsOfAllSlots(t *testing.T) {
	for mode, want := range map[plan.Mode]int{plan.HostMode: 0, plan.PodMode: 3 * handover.Slots} {
		cfg := DefaultConfig()
		cfg.Redirect.Mode = mode
		first, other := cfg.inSlot(0), cfg.inSlot(3)
		if !slices.Equal(first.Model.ListenerPorts, other.Model.ListenerPorts) || len(first.Model.ListenerPorts) != want {
			t.Errorf("mode %s: %v, %v; want %d", mode, first.Model.ListenerPorts, other.Model.ListenerPorts, want)
		}
		for _, p := range append(first.Redirect.Ports.All(), other.Redirect.Ports.All()...) {
			if want > 0 && !slices.Contains(first.Model.ListenerPorts, p) {
				t.Errorf("mode %s: %v lack %d", mode, first.Model.ListenerPorts, p)
			}
		}
	}
}
