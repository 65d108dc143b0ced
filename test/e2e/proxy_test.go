// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// bare is a lab with a client and two backends, one of them on another
// node, behind a Service of both families.
type bare struct {
	*lab.Lab
	client, near, far *lab.Pod
}

func newBare(t *testing.T, options lab.Options) bare {
	t.Helper()
	ctx := limit(t)
	l, err := lab.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w := bare{Lab: l}
	a, err := l.AddNode("node-a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.AddNode("node-b")
	if err != nil {
		t.Fatal(err)
	}
	l.Objects().SetNamespace("shop", nil)
	for _, p := range []struct {
		to   **lab.Pod
		node *lab.Node
		name string
	}{{&w.client, a, "client"}, {&w.near, a, "near"}, {&w.far, b, "far"}} {
		if *p.to, err = p.node.AddPod("shop", p.name, nil); err != nil {
			t.Fatal(err)
		}
		if err := (*p.to).Serve(ctx); err != nil {
			t.Fatal(err)
		}
	}
	l.Objects().SetService(lab.Service{
		Namespace: "shop", Name: "web", IPs: addrs("10.96.0.10", "fd00:10:96::10"),
		Ports: lab.EchoPorts(), Pods: []*lab.Pod{w.near, w.far},
	})
	l.Objects().SetService(lab.Service{
		Namespace: "shop", Name: "none", IPs: addrs("10.96.0.11", "fd00:10:96::11"), Ports: lab.EchoPorts(),
	})
	l.Objects().SetService(lab.Service{
		Namespace: "shop", Name: "self", IPs: addrs("10.96.0.12", "fd00:10:96::12"),
		Ports: lab.EchoPorts(), Pods: []*lab.Pod{w.client},
	})
	if err := l.Publish(ctx); err != nil {
		t.Fatal(err)
	}
	return w
}

func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// TestProxy sees the stand-in for kube-proxy do what kube-proxy does, in each
// of its forms, whatever the way pods are joined to nodes.
func TestProxy(t *testing.T) {
	on := true
	for name, options := range map[string]lab.Options{
		"iptables-nft, bridge":    {IPTables: "nft", BridgeNetfilter: &on},
		"iptables-legacy, bridge": {IPTables: "legacy", BridgeNetfilter: &on},
		"nftables, bridge":        {Proxy: lab.NFTables, BridgeNetfilter: &on},
		"iptables, routed":        {Veth: lab.Routed},
		"nftables, routed":        {Veth: lab.Routed, Proxy: lab.NFTables},
	} {
		t.Run(name, func(t *testing.T) {
			w := newBare(t, options)
			for _, ip := range []string{"10.96.0.10", "[fd00:10:96::10]"} {
				checkSpread(t, w, ip)
			}
			for _, ip := range []string{"10.96.0.11", "[fd00:10:96::11]"} {
				checkRefused(t, w, ip)
			}
			for _, ip := range []string{"10.96.0.12", "[fd00:10:96::12]"} {
				checkHairpin(t, w, ip)
			}
			checkRemoved(t, w)
		})
	}
}

// checkSpread wants each connection at one backend, both backends in use, and
// the client's own address seen by them.
func checkSpread(t *testing.T, w bare, ip string) {
	t.Helper()
	for _, c := range []struct {
		protocol string
		port     int
	}{{echo.HTTP10, 80}, {echo.HTTP1, 80}, {echo.H2C, 80}, {echo.GRPC, 9090}, {echo.GRPCStream, 9090}, {echo.TCP, 7000}} {
		spec := echo.Spec{Protocol: c.protocol, Target: fmt.Sprintf("%s:%d", ip, c.port), Requests: 40}
		spec.Fresh = true
		got := call(t, w.client, spec)
		if got.Failed != 0 || len(got.Pods) != 2 || got.Connections != 40 {
			t.Errorf("%s to %s, a connection each: %+v", c.protocol, ip, got)
		}
		for peer := range got.Peers {
			if ip := netip.MustParseAddr(peer); ip != w.client.IPs[0] && ip != w.client.IPs[1] {
				t.Errorf("%s to %s came from %s, want the client", c.protocol, ip, peer)
			}
		}
		if c.protocol == echo.HTTP10 {
			continue
		}
		spec.Fresh = false
		if got := call(t, w.client, spec); got.Failed != 0 || len(got.Pods) != 1 || got.Connections != 1 {
			t.Errorf("%s to %s, one connection: %+v", c.protocol, ip, got)
		}
	}
}

// checkRefused wants a connection to a Service without endpoints refused. It
// takes a second: over a veth the ICMP error comes back while connect(2) still
// holds the socket, which notes it and acts on it when it would send again.
func checkRefused(t *testing.T, w bare, ip string) {
	t.Helper()
	got := call(t, w.client, echo.Spec{Protocol: echo.TCP, Target: ip + ":80", Requests: 1})
	if got.Failed != 1 || got.First > 2*time.Second {
		t.Errorf("call to %s, which has no endpoints: %+v", ip, got)
	}
}

// checkHairpin wants a pod to reach itself by a Service.
func checkHairpin(t *testing.T, w bare, ip string) {
	t.Helper()
	got := call(t, w.client, echo.Spec{Protocol: echo.HTTP1, Target: ip + ":80", Requests: 3, Timeout: 2 * time.Second})
	if got.Failed != 0 || got.Pods["shop/client"] != 3 {
		t.Errorf("call to itself by %s: %+v", ip, got)
	}
}

// checkRemoved deletes the Service and wants no rule left for it, and makes it
// again with one backend.
func checkRemoved(t *testing.T, w bare) {
	t.Helper()
	ctx := limit(t)
	spec := echo.Spec{Protocol: echo.HTTP1, Target: "10.96.0.10:80", Requests: 10, Fresh: true, Timeout: 500 * time.Millisecond}
	w.Objects().DeleteService("shop", "web")
	if err := w.Publish(ctx); err != nil {
		t.Fatal(err)
	}
	spec.Requests = 1
	if got := call(t, w.client, spec); got.Failed != 1 {
		t.Errorf("call to a deleted Service: %+v", got)
	}
	spec.Requests = 10
	w.Objects().SetService(lab.Service{
		Namespace: "shop", Name: "web", IPs: addrs("10.96.0.10", "fd00:10:96::10"), Ports: lab.EchoPorts(), Pods: []*lab.Pod{w.far},
	})
	if err := w.Publish(ctx); err != nil {
		t.Fatal(err)
	}
	if got := call(t, w.client, spec); got.Failed != 0 || got.Pods["shop/far"] != 10 {
		t.Errorf("call to a Service made again: %+v", got)
	}
}

func call(t *testing.T, from *lab.Pod, spec echo.Spec) echo.Result {
	t.Helper()
	got, err := from.Call(limit(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
