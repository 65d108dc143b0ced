// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"io"
	"net"
	"testing"
)

// TestRelayed calls a server directly and through a relay, by each protocol,
// over more connections than a client would have ports if it couldn't use them
// again at once.
func TestRelayed(t *testing.T) {
	s := &server{pod: "ns/pod"}
	for protocol, serve := range map[string]func(net.Listener) error{
		HTTP10: s.serveHTTP, HTTP1: s.serveHTTP, H2C: s.serveHTTP, GRPC: s.serveGRPC, GRPCStream: s.serveGRPC, TCP: s.serveTCP,
	} {
		t.Run(protocol, func(t *testing.T) {
			direct := listen(t, func(l net.Listener) { _ = serve(l) })
			relay := listen(t, func(l net.Listener) { relayTo(l, direct) })
			for target, want := range map[string]int{direct: 0, relay: 30} {
				spec := Spec{Protocol: protocol, Target: target, Requests: 30, Connections: 3, Fresh: true, OwnPorts: true}
				var seen int
				spec.Each = func(r Record) {
					if r.Relayed {
						seen++
					}
				}
				got, err := Run(t.Context(), spec)
				if err != nil || got.Failed > 0 {
					t.Fatal(err, got.Errors)
				}
				if got.Relayed != want || seen != want {
					t.Errorf("of 30 calls, %d are relayed, %d by record; want %d", got.Relayed, seen, want)
				}
				spec.OwnPorts, spec.Each = false, nil
				if got, err := Run(t.Context(), spec); err != nil || got.Relayed != 0 {
					t.Errorf("without ports of its own, a client claims that %d calls are relayed (%v)", got.Relayed, err)
				}
			}
		})
	}
}

// relayTo passes each connection on to another address.
func relayTo(listener net.Listener, target string) {
	for {
		in, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer in.Close()
			out, err := net.Dial("tcp", target)
			if err != nil {
				return
			}
			defer out.Close()
			go func() { _, _ = io.Copy(out, in); out.Close() }()
			_, _ = io.Copy(in, out)
		}()
	}
}

// TestDialWhereAsked wants every connection made through In.
func TestDialWhereAsked(t *testing.T) {
	s := &server{pod: "ns/pod"}
	addr := listen(t, func(l net.Listener) { _ = s.serveTCP(l) })
	entered := 0
	spec := Spec{Protocol: TCP, Target: addr, Requests: 5, Fresh: true, In: func(fn func() error) error { entered++; return fn() }}
	got, err := Run(t.Context(), spec)
	if err != nil || got.Failed > 0 || entered != 5 {
		t.Errorf("%d of 5 connections were made where asked: %v, %v", entered, err, got.Errors)
	}
}
